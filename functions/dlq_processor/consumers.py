"""Who handles events, by the names under which failures are listed, and what it takes to hand them one again."""

from dataclasses import dataclass

ANALYTICS = "analytics"
EVENT_PUBLISHER = "event-publisher"


@dataclass(frozen=True)
class Consumers:
    """The part of the environment that names the consumers. Another one joins by a line here and one in the role."""

    inventory_function: str
    order_status_function: str
    email_function: str
    analytics_function: str
    event_publisher_function: str
    sales_report_function: str
    analytics_queue_arn: str
    orders_table: str
    inventory_table: str

    def function_of(self, consumer: str) -> str:
        """The name of a consumer's function. A consumer that is not known here is a function's name itself."""
        return self._functions.get(consumer, consumer)

    def at(self, function_arn: str) -> str:
        """The consumer behind a function's ARN, with or without a qualifier; a bare name will do."""
        name = function_arn.partition(":function:")[2].partition(":")[0] or function_arn
        return next((consumer for consumer, function in self._functions.items() if function == name), name)

    def is_analytics_queue(self, arn: str) -> bool:
        """Whether an ARN is the analytics queue's: a queue's name is unique here, and all that `sam local` knows."""
        return arn.rpartition(":")[2] == self.analytics_queue_arn.rpartition(":")[2]

    @property
    def _functions(self) -> dict[str, str]:
        return {
            "inventory": self.inventory_function,
            "order-status": self.order_status_function,
            "email": self.email_function,
            ANALYTICS: self.analytics_function,
            EVENT_PUBLISHER: self.event_publisher_function,
            "sales-report": self.sales_report_function,
        }
