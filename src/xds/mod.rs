//! Speaking xDS: transports, subscription state, and the handlers of each resource type.
