//! What must hold for any configuration and any page of an engine. The fuzz targets, the property tests and the corpus
//! replay call these functions.

use std::collections::BTreeMap;
use std::time::Instant;

use llmd_epp_api::MetricsRecord;
use llmd_epp_core::EndpointPickerConfig;
use llmd_epp_core::config::validate;
use llmd_epp_core::plugins::datalayer::core_metrics_extractor::{
    CoreMetricsExtractor, ENGINE_LABEL, Parameters, Scratch,
};
use llmd_epp_core::plugins::datalayer::dcgm_extractor::DcgmExtractor;
use llmd_epp_core::plugins::datalayer::models_data_extractor;

/// Engines with specs of their own; the last is none.
const ENGINES: [&str; 5] = [
    "vllm",
    "sglang",
    "trtllm-serve",
    "triton-tensorrt-llm",
    "of nobody",
];
/// Leaves traces in the memory that readings share.
const EARLIER: &[u8] = include_bytes!("../testdata/sglang.prom");

/// A text is decoded to the same thing each time, and what is refused is told why.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let decoded = EndpointPickerConfig::decode(text);
    match (&decoded, validate(text)) {
        (Ok(decoded), Ok(warnings)) => assert!(
            warnings.starts_with(&decoded.warnings),
            "warnings of the decoder are lost"
        ),
        (Err(error), Ok(_)) => panic!("only the whole accepts it: {error}"),
        (_, Err(error)) => assert!(!error.to_string().is_empty(), "refused without a reason"),
    }
    let again = EndpointPickerConfig::decode(text);
    assert_eq!(
        format!("{decoded:?}"),
        format!("{again:?}"),
        "decoded differently"
    );
}

/// No page stops a reader, and what was read before does not show in what is read.
pub fn metrics_page(data: &[u8]) {
    let extractor = CoreMetricsExtractor::new(&Parameters::default()).expect("built-in engines");
    let now = Instant::now();
    for engine in ENGINES {
        let engine = extractor.engine_of(&BTreeMap::from([(ENGINE_LABEL.to_owned(), engine.to_owned())]));
        let read = |page: &[u8], scratch: &mut Scratch| {
            let mut record = MetricsRecord::default();
            let extracted = extractor.extract(engine, page, now, scratch, &mut record);
            let told = extracted.first_failure.map(|failure| failure.to_string());
            assert_eq!(told.is_some(), extracted.failures > 0, "a failure is told");
            assert_eq!(
                extracted.updated,
                record.update_time.is_some(),
                "the age of metrics"
            );
            // As text: values may be no numbers, which equal nothing.
            format!("{record:?} {told:?} {}", extracted.failures)
        };
        let fresh = read(data, &mut Scratch::default());
        let mut used = Scratch::default();
        read(EARLIER, &mut used);
        assert_eq!(read(data, &mut used), fresh, "an earlier page shows");
    }
    DcgmExtractor::default().extract("pod", data, &mut MetricsRecord::default());
    models_data_extractor::extract(data, &mut MetricsRecord::default());
}
