"""The e-mail service: what customers and the sales team are told about orders."""
