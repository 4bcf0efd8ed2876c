"""The commands ``qcg-pm-map``: one template, many parameters; and ``qcg-pm-record``: what has become of the jobs.

::

    program.py     what both have in common
    main.py        qcg-pm-map: options, and what is done with them
    parameters.py  a table, a grid -> one dictionary for each job
    study.py       those and a template -> jobs: submitted, attached to, or only shown
    table.py       how the jobs have ended -> a table, a line for people
    record.py      qcg-pm-record: options, and what is done with them
    rows.py        rows of a record -> standard output
"""
