//! The one parameter of all pickers.

use llmd_epp_api::{BuildContext, BuildError};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    max_num_of_endpoints: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            max_num_of_endpoints: 1,
        }
    }
}

/// How many endpoints a picker takes at most.
pub(super) fn max_num_of_endpoints(context: &BuildContext<'_>) -> Result<usize, BuildError> {
    let Parameters { max_num_of_endpoints } = context.parameters()?;
    if max_num_of_endpoints == 0 {
        return Err(BuildError::value("maxNumOfEndpoints", "must be greater than 0"));
    }
    Ok(max_num_of_endpoints)
}
