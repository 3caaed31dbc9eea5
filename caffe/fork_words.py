"""What forks of Caffe write in a prototxt for things that BVLC Caffe can say: the text is changed to its words.

Only text: in binary files `ceil_mode: true` has the number of `round_mode: FLOOR`, its very opposite, so the number is
read as BVLC Caffe's.
"""

ROUNDING = {"true": "CEIL", "1": "CEIL", "True": "CEIL", "t": "CEIL",
            "false": "FLOOR", "0": "FLOOR", "False": "FLOOR", "f": "FLOOR"}  # fmt: skip


def in_our_words(word):
    """What the unknown `word` (words.Word) says, in Caffe's words; "" where that is nothing; None: not sure."""
    if word.field == "engine" and word.value is not None:
        return ""  # by which library a layer is computed; there is one here
    if (word.message, word.field) == ("PoolingParameter", "ceil_mode") and word.value in ROUNDING:
        return f"round_mode: {ROUNDING[word.value]}"
    if (word.message, word.field) == ("PythonParameter", "param_str_") and word.value is not None:
        return f"param_str: {word.value}"
    return None
