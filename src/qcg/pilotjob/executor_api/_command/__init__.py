"""The command ``qcg-pm-map``: one template, many parameters.

::

    main.py        options, and what is done with them
    parameters.py  a table, a grid -> one dictionary for each job
    study.py       those and a template -> jobs: submitted, attached to, or only shown
    table.py       how the jobs have ended -> a table, a line for people
"""
