"""Find all that is wrong in the text of a template, each fault with its place.

::

    text.py       placeholders and syntax: what keeps the text from being read
    places.py     the text that was read -> where each key and value stands in it
    stand_ins.py  values for placeholders that have none yet
    jobs.py       the package's own validation, again and again -> what no value can mend
    report.py     all of them -> findings in the order of the text, and the parameters

Nothing here knows the rules of a description: what is wrong is what rendering and validation refuse.
"""
