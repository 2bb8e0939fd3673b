"""The inventory service: stock, and the reservations of orders."""
