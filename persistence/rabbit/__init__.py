"""Jobs on RabbitMQ."""
