"""The shipped scenarios' runs beside what the nearest real episodes say that they should show."""
