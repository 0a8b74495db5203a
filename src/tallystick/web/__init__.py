"""Pages for people: the customer's checkout. Calls services; must not hold SQL, money arithmetic or decisions."""
