"""What notebooks 05 and later need: named rows, tables and statistics, published numbers, figures; reads results."""
