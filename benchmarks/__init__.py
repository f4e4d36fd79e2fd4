"""What the platform costs beside what its users would otherwise run, on one machine, in one run: `make bench`.

`months` makes the inputs, `peers` are those that are measured, `measure` measures one of them in a process of its own,
`rounds` has them take turns; `cleaning`, `loading` and `running` say who takes part in which comparison. `requirements`
says what must hold, `growth` what all of TLC's history would take; `page` and `picture` show it.
"""
