//! What extensions of more than one kind have in common.

pub mod workload;
