"""What tests are made of: virtual time, hosts in a line, packet scripts, checkers, namespaces."""
