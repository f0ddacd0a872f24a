//! What needs an API server and no nodes: the chart and the verbs.

mod chart;
mod verbs;
