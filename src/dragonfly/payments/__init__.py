"""Money that comes from outside: top-ups, refunds, disputes, automatic top-ups, promotional codes."""
