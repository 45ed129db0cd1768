"""The demonstration: from exports to a growth agent's answer, over the real service and the real assets."""
