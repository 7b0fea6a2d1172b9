"""Between the control plane and hosts that have no database: names, connections and both directions over RabbitMQ."""
