//! Predicted latencies of a request, per endpoint.

/// Attribute name of [`LatencyPrediction`].
pub const LATENCY_PREDICTION_INFO: &str = "LatencyPredictionInfo";

/// What a predictor expects of one endpoint (upstream `LatencyPredictionInfo`). Times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Time to the first token.
    pub ttft_ms: f64,
    /// Time per output token.
    pub tpot_ms: f64,
    /// The request's objective less [`Self::ttft_ms`]; below 0 misses it.
    pub ttft_headroom_ms: f64,
    /// The request's objective less [`Self::tpot_ms`]; below 0 misses it.
    pub tpot_headroom_ms: f64,
    /// The time to the first token is within its objective.
    pub is_ttft_valid: bool,
    /// The time per output token is within its objective.
    pub is_tpot_valid: bool,
    /// Requests that this process has running there.
    pub dispatched: u32,
}

impl Prediction {
    /// Both times are within their objectives.
    pub fn is_valid(&self) -> bool {
        self.is_ttft_valid && self.is_tpot_valid
    }

    /// Neither headroom is below 0.
    pub fn has_headroom(&self) -> bool {
        self.ttft_headroom_ms >= 0.0 && self.tpot_headroom_ms >= 0.0
    }
}

/// The predictions for one request.
#[derive(Debug, Default)]
pub struct LatencyPrediction {
    /// By snapshot index; `None` where there is no prediction.
    pub endpoints: Vec<Option<Prediction>>,
}

impl LatencyPrediction {
    /// What is expected of endpoint `index`.
    pub fn of(&self, index: u32) -> Option<&Prediction> {
        self.endpoints.get(index as usize)?.as_ref()
    }
}
