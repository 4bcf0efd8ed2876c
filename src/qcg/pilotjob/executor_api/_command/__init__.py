"""The commands ``qcg-pm-map``, one template with many parameters, and ``qcg-pm-template``, which checks templates.

::

    main.py        options of qcg-pm-map, and what is done with them
    parameters.py  a table, a grid -> one dictionary for each job
    study.py       those and a template -> jobs: submitted, attached to, or only shown
    table.py       how the jobs have ended -> a table, a line for people
    templates.py   options of qcg-pm-template; the checks are in _check
    ready_made.py  the templates that come with the package
"""
