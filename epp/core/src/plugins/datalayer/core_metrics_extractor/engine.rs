//! One engine's specs, compiled, and what each of them writes into the record.

use std::collections::BTreeMap;
use std::sync::Arc;

use llmd_epp_api::MetricsRecord;
use serde::Deserialize;

use super::page::{Family, Found, Index, LabelEquals, Labels, Scratch, Series, scan};
use super::spec::Spec;
use super::{Extracted, ParameterError};

/// Metric names of one engine; an empty spec disables its field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Value of the engine label.
    pub name: String,
    /// Requests waiting.
    pub queued_requests_spec: String,
    /// Requests running.
    pub running_requests_spec: String,
    /// KV-cache use, 0..=1.
    pub kv_usage_spec: String,
    /// LoRA adapters, in labels.
    pub lora_spec: String,
    /// Cache layout, in labels.
    pub cache_info_spec: String,
    /// Label of `cacheInfoSpec` with the block size; `block_size` when empty.
    pub cache_block_size_label_name: String,
    /// Label of `cacheInfoSpec` with the number of blocks; `num_gpu_blocks` when empty.
    pub cache_num_blocks_label_name: String,
    /// Tokens per block as a value.
    pub cache_block_size_spec: String,
    /// Number of blocks as a value.
    pub cache_num_blocks_spec: String,
    /// Scalars for scorers that ask for them.
    pub custom_metrics: Vec<CustomMetric>,
}

/// A scalar stored under an attribute key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CustomMetric {
    /// Key in [`MetricsRecord::custom`].
    pub attribute_key: String,
    /// Where the value comes from.
    pub metric_spec: String,
}

/// The engines known without configuration.
///
/// SGLang gives its cache layout as gauges since 0.5.12 and as labels of `cache_config_info` before
/// (llm-d-router #2619): both are read, and only the lack of both is a failure.
pub(super) fn built_in() -> [EngineConfig; 5] {
    let engine = |name: &str, queued: &str, running: &str, kv: &str| EngineConfig {
        name: name.to_owned(),
        queued_requests_spec: queued.to_owned(),
        running_requests_spec: running.to_owned(),
        kv_usage_spec: kv.to_owned(),
        ..EngineConfig::default()
    };
    let vllm = EngineConfig {
        lora_spec: "vllm:lora_requests_info".to_owned(),
        cache_info_spec: "vllm:cache_config_info".to_owned(),
        ..engine(
            "vllm",
            "vllm:num_requests_waiting",
            "vllm:num_requests_running",
            "vllm:kv_cache_usage_perc",
        )
    };
    let sglang = EngineConfig {
        cache_info_spec: "sglang:cache_config_info".to_owned(),
        cache_block_size_label_name: "page_size".to_owned(),
        cache_num_blocks_label_name: "num_pages".to_owned(),
        cache_block_size_spec: "sglang:page_size".to_owned(),
        cache_num_blocks_spec: "sglang:num_pages".to_owned(),
        ..engine(
            "sglang",
            "sglang:num_queue_reqs",
            "sglang:num_running_reqs",
            "sglang:token_usage",
        )
    };
    let trtllm_serve = EngineConfig {
        cache_block_size_spec: "trtllm_kv_cache_tokens_per_block".to_owned(),
        cache_num_blocks_spec: "trtllm_kv_cache_max_blocks".to_owned(),
        ..engine(
            "trtllm-serve",
            "trtllm_num_requests_waiting",
            "trtllm_num_requests_running",
            "trtllm_kv_cache_utilization",
        )
    };
    let triton_tensorrt_llm = EngineConfig {
        cache_block_size_spec: "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}".to_owned(),
        cache_num_blocks_spec: "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}".to_owned(),
        ..engine(
            "triton-tensorrt-llm",
            "nv_trt_llm_request_metrics{request_type=waiting}",
            "nv_trt_llm_request_metrics{request_type=scheduled}",
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",
        )
    };
    let triton = engine(
        "triton",
        "nv_inference_pending_request_count",
        "nv_inference_exec_count",
        "",
    );
    [vllm, sglang, trtllm_serve, triton_tensorrt_llm, triton]
}

/// Counters of the engine's own prefix cache: `(hits, queries)`, or a ready-made ratio. They feed the
/// live table only and are no part of the configuration, so their absence is not a failure.
fn prefix_cache_specs(engine: &str) -> &'static [(Role, &'static str)] {
    match engine {
        "vllm" => &[
            (Role::PrefixHits, "vllm:prefix_cache_hits_total"),
            (Role::PrefixQueries, "vllm:prefix_cache_queries_total"),
        ],
        "sglang" => &[(Role::PrefixRatio, "sglang:cache_hit_rate")],
        _ => &[],
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Waiting,
    Running,
    KvUsage,
    Lora,
    CacheInfo,
    BlockSize,
    NumBlocks,
    Custom(usize),
    PrefixHits,
    PrefixQueries,
    PrefixRatio,
}

impl Role {
    fn field(self) -> &'static str {
        match self {
            Self::Waiting => "queuedRequestsSpec",
            Self::Running => "runningRequestsSpec",
            Self::KvUsage => "kvUsageSpec",
            Self::Lora => "loraSpec",
            Self::CacheInfo => "cacheInfoSpec",
            Self::BlockSize => "cacheBlockSizeSpec",
            Self::NumBlocks => "cacheNumBlocksSpec",
            Self::Custom(_) => "customMetrics",
            Self::PrefixHits | Self::PrefixQueries | Self::PrefixRatio => "prefix cache",
        }
    }
}

/// A spec that could not be read from a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecFailure<'a> {
    /// Field of the engine's configuration.
    pub field: &'static str,
    /// The spec as written.
    pub spec: &'a str,
    /// What is wrong, lower case.
    pub reason: &'static str,
}

impl std::fmt::Display for SpecFailure<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} '{}': {}", self.field, self.spec, self.reason)
    }
}

const FAMILY_MISSING: &str = "the page has no such metric family";
const SERIES_MISSING: &str = "no series has the labels";
const NOT_A_NUMBER: &str = "the value is not a finite number";
const NOT_AN_INTEGER: &str = "a label is not an integer";

#[derive(Debug)]
struct Wanted {
    role: Role,
    text: String,
}

/// One engine's compiled specs.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) name: Arc<str>,
    families: Vec<Family>,
    series: Vec<Series>,
    wanted: Vec<Wanted>,
    index: Index,
    block_size_label: Box<[u8]>,
    num_blocks_label: Box<[u8]>,
    custom_keys: Vec<Arc<str>>,
    /// Cache layout is looked for in labels and in values; one of both is enough.
    layout_twice: bool,
}

impl Engine {
    pub(super) fn compile(index: usize, config: &EngineConfig) -> Result<Self, ParameterError> {
        let EngineConfig {
            name,
            queued_requests_spec,
            running_requests_spec,
            kv_usage_spec,
            lora_spec,
            cache_info_spec,
            cache_block_size_label_name,
            cache_num_blocks_label_name,
            cache_block_size_spec,
            cache_num_blocks_spec,
            custom_metrics,
        } = config;
        let mut specs = vec![
            (Role::Waiting, queued_requests_spec.as_str()),
            (Role::Running, running_requests_spec),
            (Role::KvUsage, kv_usage_spec),
            (Role::Lora, lora_spec),
            // Labels before values: a value given as well wins.
            (Role::CacheInfo, cache_info_spec),
            (Role::BlockSize, cache_block_size_spec),
            (Role::NumBlocks, cache_num_blocks_spec),
        ];
        let mut custom_keys: Vec<Arc<str>> = Vec::new();
        for CustomMetric {
            attribute_key,
            metric_spec,
        } in custom_metrics
        {
            if attribute_key.is_empty() || custom_keys.iter().any(|key| **key == **attribute_key) {
                let key = attribute_key.clone();
                return Err(ParameterError::AttributeKey { index, key });
            }
            specs.push((Role::Custom(custom_keys.len()), metric_spec));
            custom_keys.push(attribute_key.as_str().into());
        }
        specs.extend(prefix_cache_specs(name));

        let mut families: Vec<Family> = Vec::new();
        let mut series = Vec::new();
        let mut wanted = Vec::new();
        for (role, text) in specs {
            let parsed = Spec::parse(text).map_err(|source| ParameterError::Spec {
                index,
                field: role.field(),
                source,
            })?;
            let Some(Spec { family, labels }) = parsed else {
                continue;
            };
            let position = series.len();
            match families
                .iter_mut()
                .find(|known| *known.name == *family.as_bytes())
            {
                Some(known) => known.series.push(position),
                None => families.push(Family {
                    name: family.into_bytes().into(),
                    series: vec![position],
                }),
            }
            series.push(Series {
                labels: labels
                    .into_iter()
                    .map(|(name, value)| LabelEquals {
                        name: name.into_bytes().into(),
                        value: value.into_bytes().into(),
                    })
                    .collect(),
                by_value: role == Role::Lora,
            });
            let text = text.trim().to_owned();
            wanted.push(Wanted { role, text });
        }
        let label = |written: &str, default: &str| {
            let name = if written.is_empty() { default } else { written };
            name.as_bytes().into()
        };
        let has = |role| wanted.iter().any(|spec: &Wanted| spec.role == role);
        Ok(Self {
            name: name.as_str().into(),
            index: Index::new(&families),
            block_size_label: label(cache_block_size_label_name, "block_size"),
            num_blocks_label: label(cache_num_blocks_label_name, "num_gpu_blocks"),
            custom_keys,
            layout_twice: has(Role::CacheInfo) && (has(Role::BlockSize) || has(Role::NumBlocks)),
            families,
            series,
            wanted,
        })
    }

    pub(super) fn extract(
        &self,
        page: &[u8],
        scratch: &mut Scratch,
        record: &mut MetricsRecord,
    ) -> Extracted<'_> {
        scan(page, &self.index, &self.families, &self.series, scratch);
        let mut extracted = Extracted::nothing();
        let mut layout = Layout::default();
        let mut prefix = PrefixCounters::default();
        for (spec, found) in self.wanted.iter().zip(&scratch.found) {
            match self.store(spec.role, page, found, record, &mut layout, &mut prefix) {
                Ok(stored) => extracted.updated |= stored,
                Err(reason) if self.layout_twice && layout.defer(spec, reason) => {}
                Err(reason) => extracted.fail(spec, reason),
            }
        }
        if let (false, Some((spec, reason))) = (layout.complete(), layout.deferred) {
            extracted.fail(spec, reason);
        }
        layout.store(record);
        if let Some(ratio) = prefix.ratio() {
            record.prefix_hit_rate = Some(ratio);
        }
        extracted
    }

    /// Writes one field; `Ok(false)` when there was nothing to read and that is fine.
    fn store(
        &self,
        role: Role,
        page: &[u8],
        found: &Found,
        record: &mut MetricsRecord,
        layout: &mut Layout<'_>,
        prefix: &mut PrefixCounters,
    ) -> Result<bool, &'static str> {
        let Some(sample) = found.best else {
            return match role {
                Role::PrefixHits | Role::PrefixQueries | Role::PrefixRatio => Ok(false),
                Role::Lora if !found.family_seen => Ok(false),
                _ if found.family_seen => Err(SERIES_MISSING),
                _ => Err(FAMILY_MISSING),
            };
        };
        let finite = || {
            Some(sample.value)
                .filter(|value| value.is_finite())
                .ok_or(NOT_A_NUMBER)
        };
        match role {
            Role::Waiting => record.waiting_queue_size = finite()? as u32,
            Role::Running => record.running_requests_size = finite()? as u32,
            Role::KvUsage => record.kv_cache_usage = finite()?,
            Role::BlockSize => layout.block_size = Some(finite()? as u32),
            Role::NumBlocks => layout.num_blocks = Some(finite()? as u32),
            Role::Custom(position) => {
                record.set_custom(&self.custom_keys[position], finite()?);
            }
            Role::CacheInfo => {
                let labels = sample.labels(page);
                let block_size = integer(labels, &self.block_size_label);
                let num_blocks = integer(labels, &self.num_blocks_label);
                layout.block_size = block_size.unwrap_or_default().or(layout.block_size);
                layout.num_blocks = num_blocks.unwrap_or_default().or(layout.num_blocks);
                block_size.and(num_blocks)?;
            }
            Role::Lora => {
                let labels = sample.labels(page);
                let running = labels.get(b"running_lora_adapters").unwrap_or_default();
                let waiting = labels.get(b"waiting_lora_adapters").unwrap_or_default();
                store_names(running, &mut record.active_models);
                store_names(waiting, &mut record.waiting_models);
                if let Some(most) = integer(labels, b"max_lora")? {
                    record.max_active_models = most;
                }
            }
            Role::PrefixHits => prefix.hits = sample.value,
            Role::PrefixQueries => prefix.queries = sample.value,
            Role::PrefixRatio => prefix.ratio = Some(sample.value),
        }
        Ok(!matches!(
            role,
            Role::PrefixHits | Role::PrefixQueries | Role::PrefixRatio
        ))
    }
}

impl<'a> Extracted<'a> {
    fn fail(&mut self, spec: &'a Wanted, reason: &'static str) {
        self.failures += 1;
        self.first_failure.get_or_insert(SpecFailure {
            field: spec.role.field(),
            spec: &spec.text,
            reason,
        });
    }
}

/// Cache layout gathered from labels and values.
#[derive(Default)]
struct Layout<'a> {
    block_size: Option<u32>,
    num_blocks: Option<u32>,
    deferred: Option<(&'a Wanted, &'static str)>,
}

impl<'a> Layout<'a> {
    /// Keeps a failure back until it is clear that the other way did not work either.
    fn defer(&mut self, spec: &'a Wanted, reason: &'static str) -> bool {
        let of_layout = matches!(spec.role, Role::CacheInfo | Role::BlockSize | Role::NumBlocks);
        if of_layout {
            self.deferred.get_or_insert((spec, reason));
        }
        of_layout
    }

    fn complete(&self) -> bool {
        self.block_size.is_some() && self.num_blocks.is_some()
    }

    fn store(&self, record: &mut MetricsRecord) {
        if let Some(tokens) = self.block_size {
            record.cache_block_size = tokens;
        }
        if let Some(blocks) = self.num_blocks {
            record.cache_num_blocks = blocks;
        }
        record.kv_cache_max_token_capacity =
            u64::from(record.cache_block_size) * u64::from(record.cache_num_blocks);
    }
}

#[derive(Default)]
struct PrefixCounters {
    hits: f64,
    queries: f64,
    ratio: Option<f64>,
}

impl PrefixCounters {
    fn ratio(&self) -> Option<f64> {
        let counted = (self.queries > 0.0).then(|| self.hits / self.queries);
        self.ratio.or(counted).filter(|ratio| ratio.is_finite())
    }
}

/// An integer label: `None` when it is absent.
fn integer(labels: Labels<'_>, name: &[u8]) -> Result<Option<u32>, &'static str> {
    let Some(raw) = labels.get(name) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(raw).map_err(|_| NOT_AN_INTEGER)?;
    text.trim().parse().map(Some).map_err(|_| NOT_AN_INTEGER)
}

/// Puts a comma-separated list into a map with value 0; an unchanged list allocates nothing.
fn store_names(list: &[u8], names: &mut BTreeMap<String, u32>) {
    let Ok(list) = std::str::from_utf8(list) else {
        return;
    };
    let entries = || list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let all_known = entries().all(|name| names.contains_key(name));
    let none_gone = all_known && names.keys().all(|known| entries().any(|name| name == known));
    if !none_gone {
        names.clear();
        names.extend(entries().map(|name| (name.to_owned(), 0)));
    }
}
