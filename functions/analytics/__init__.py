"""The analytics service: counts orders, sales and cancellations, each event once, and reports them daily."""
