"""The e-mail service: e-mails customers about their orders, and the sales team about high-value orders."""
