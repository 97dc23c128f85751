import numpy as np
import pandas as pd

from attnsem.analysis.captions import Captioned


def test_a_table_has_a_caption_rounded_numbers_and_nothing_where_there_is_none():
    table = pd.DataFrame({"<b>": [71.400002, np.nan, -0.001], "n": [5, 6, 7]}, ["x", "y", "z"])
    shown = Captioned(table, "mAP (%) of <three>", 1)
    html = shown._repr_html_()
    assert "mAP (%) of" in html and ">71.4<" in html and ">0.0<" in html and "&lt;b&gt;" in html
    assert not any(word in html + repr(shown) for word in ("nan", "NaN", "71.400002", "-0.0", "Styler at"))
    assert repr(shown).startswith("mAP (%) of <three>\n")
