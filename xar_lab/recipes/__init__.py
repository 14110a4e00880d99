"""Methods of the family by name, one module each: importing it registers the recipe and whatever it needs."""
