"""Virtual network interfaces: the cables between the stack and whatever is outside it.

`base.Vif` is what all of them look like. May import `wire`, `checksum`, `errors` and the operating
system; never the stack above.
"""
