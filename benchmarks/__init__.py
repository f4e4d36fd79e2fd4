"""Benchmarks of this project and its alternatives, on one machine: `make bench`.

- `months` generates the input files.
- `peers` has the programs that are measured.
- `measure` measures one program in a new process; `rounds` runs programs in turns and stores the results.
- `cleaning`, `loading`, `revisions` and `running` define the comparisons.
- `requirements` has the limits; `full_history` estimates the cost of all published months.
- `page` and `chart` write docs/benchmarks.md.
"""
