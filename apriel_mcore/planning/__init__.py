"""What will a run cost, before it is started? Closed forms and a simulation, without torch."""
