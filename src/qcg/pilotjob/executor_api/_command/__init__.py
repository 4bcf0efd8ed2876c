"""The commands of the shell.

``qcg-pm-map`` runs one template with many parameters, ``qcg-pm-record`` tells what has become of jobs, and
``qcg-pm-template`` what is wrong in a template::

    program.py     how all commands end, and the templates that come with the package
    map.py         qcg-pm-map: options, and what is done with them
    parameters.py  a table, a grid -> one dictionary for each job
    study.py       those and a template -> jobs: submitted, attached to, or only shown
    submitted.py   what the jobs of a run were submitted with: rows that do not agree with it are refused
    table.py       how the jobs have ended -> a table, a line for people
    record.py      qcg-pm-record: options, and the rows of a record on standard output
    template.py    qcg-pm-template: options; the checks are in _description/check
"""
