"""Read, sum up and draw the records of runs, for `RunRecord`.

`rows` (from a line of the record to a row), `runs` (the files of a run), `live` (what the manager of an executor tells
besides), `merging` (several runs, and what was run again), `use` (cores over time), `summary`; and the pictures:
`moments` (the axis of time), `lanes`, `drawing`; for a browser `tips` (what is said of the bars) and `page`, with its
script in ``page.html``.
"""
