"""Speed and memory beside the peers', measured in one run: `make bench`, or one row with `python -m benchmarks.<row>`.

Reading order: contender.py (a piece of work in a process of its own), race.py (contenders take turns), report.py
(a table, a JSON line, the page docs/performance.md), peers/ (where other projects' code is found and how it is called).
"""
