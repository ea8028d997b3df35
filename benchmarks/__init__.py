"""Speed and memory compared with peers in one run: `make bench`, or one row with `python -m benchmarks.<row>`.

Reading order: contender.py (a task in a process of its own), race.py (contenders take turns), report.py (a table and a
JSON line), page.py (docs/performance.md), peers/ (where other projects' code is found and how it is called).
`make bench-peers` fetches the peers; docs/performance.md says what a run needs.
"""
