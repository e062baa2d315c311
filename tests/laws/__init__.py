"""Laws that every method obeys, over one table of methods and one set of networks."""
