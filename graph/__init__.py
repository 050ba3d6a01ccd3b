"""The GraphQL surface: translates between GraphQL and the use cases, and decides nothing."""
