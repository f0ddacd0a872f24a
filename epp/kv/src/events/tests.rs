//! Frames by the engines' documents: no engine was asked for these.

use rmpv::Value;

use super::*;

fn packed(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("memory");
    bytes
}

fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value::Array(values.into_iter().collect())
}

fn map(members: &[(&str, Value)]) -> Value {
    let members = members
        .iter()
        .map(|(name, value)| (Value::from(*name), value.clone()));
    Value::Map(members.collect())
}

fn numbers(values: &[u64]) -> Value {
    list(values.iter().copied().map(Value::from))
}

/// The only event of a batch.
fn one(event: Value) -> Result<Event, EventError> {
    let batch = list([Value::from(1.5), list([event]), Value::Nil]);
    let batch = decode(&packed(&batch)).expect("a batch");
    assert!((batch.at - 1.5).abs() < f64::EPSILON && batch.rank.is_none());
    let [event] = &batch.events[..] else {
        panic!("{batch:?}")
    };
    event.clone()
}

fn stored() -> Stored {
    Stored {
        block_hashes: vec![7, u64::MAX],
        parent_block_hash: Some(3),
        token_ids: vec![1, 2, 3, 4],
        block_size: 2,
        medium: Some("GPU".to_owned()),
        ..Stored::default()
    }
}

/// vLLM up to 0.23 and SGLang up to 0.5.17 by position; vLLM since 0.24 and SGLang 0.5.23 by name.
#[test]
fn both_engines_old_and_new_say_the_same() {
    let hashes = list([Value::from(7), Value::from(-1)]);
    let positional = [
        Value::from("BlockStored"),
        hashes.clone(),
        Value::from(3),
        numbers(&[1, 2, 3, 4]),
        Value::from(2),
        Value::Nil,
        Value::from("GPU"),
    ];
    assert_eq!(one(list(positional.clone())), Ok(Event::Stored(stored())));
    let longer = positional.iter().cloned().chain([
        Value::from("adapter"),
        Value::Nil,
        Value::from(0),
        Value::from("full_attention"),
        Value::Nil,
        Value::from("of the future"),
    ]);
    let with_more = Stored {
        lora_name: Some("adapter".to_owned()),
        group_idx: Some(0),
        kv_cache_spec_kind: Some("full_attention".to_owned()),
        ..stored()
    };
    assert_eq!(one(list(longer)), Ok(Event::Stored(with_more)));
    let mut renamed = positional.to_vec();
    renamed[0] = Value::from("BlockStoredWithMetadata");
    renamed.push(map(&[("n", Value::from(1))]));
    assert_eq!(one(list(renamed)), Ok(Event::Stored(stored())));

    let named = map(&[
        ("type", Value::from("BlockStored")),
        ("block_hashes", hashes),
        ("parent_block_hash", Value::from(3)),
        ("token_ids", numbers(&[1, 2, 3, 4])),
        ("block_size", Value::from(2)),
        ("lora_id", Value::Nil),
        ("medium", Value::from("GPU")),
        ("cache_salt", Value::from("tenant")),
        ("session_id", Value::from("s")),
        ("of_the_future", map(&[])),
    ]);
    let salted = Stored {
        cache_salt: Some("tenant".to_owned()),
        ..stored()
    };
    assert_eq!(one(named), Ok(Event::Stored(salted)));
    let removed = Removed {
        block_hashes: vec![9],
        medium: Some("CPU_PINNED".to_owned()),
        group_idx: None,
    };
    for event in [
        list([
            Value::from("BlockRemoved"),
            numbers(&[9]),
            Value::from("CPU_PINNED"),
        ]),
        map(&[
            ("type", Value::from("BlockRemoved")),
            ("block_hashes", numbers(&[9])),
            ("medium", Value::from("CPU_PINNED")),
        ]),
    ] {
        assert_eq!(one(event), Ok(Event::Removed(removed.clone())));
    }
    for event in [
        list([Value::from("AllBlocksCleared")]),
        map(&[("type", Value::from("AllBlocksCleared"))]),
    ] {
        assert_eq!(one(event), Ok(Event::Cleared));
    }
}

/// Digests as bytes, an event packed by itself, a parent of 0, a time without a fraction, a batch without a rank.
#[test]
fn a_storage_tier_is_understood() {
    let event = list([
        Value::from("BlockStored"),
        list([
            Value::Binary(vec![1, 0, 0, 0, 0, 0, 0, 0, 2]),
            Value::Binary(vec![5]),
        ]),
        Value::from(0),
        list([]),
        Value::from(0),
        Value::Nil,
        Value::Binary(b"SHARED_STORAGE".to_vec()),
    ]);
    let batch = list([Value::from(2), list([Value::Binary(packed(&event))])]);
    let batch = decode(&packed(&batch)).expect("a batch");
    let tier = Stored {
        block_hashes: vec![2, 5],
        medium: Some("SHARED_STORAGE".to_owned()),
        ..Stored::default()
    };
    assert_eq!(batch.events, [Ok(Event::Stored(tier))]);
    assert!((batch.at - 2.0).abs() < f64::EPSILON);
}

#[test]
fn a_wrong_event_does_not_take_the_others_along() {
    let right = list([Value::from("AllBlocksCleared")]);
    let wrong = [
        (map(&[("block_hashes", numbers(&[1]))]), "a map without type"),
        (list([Value::from("BlockRemoved")]), "block_hashes is missing"),
        (
            list([
                Value::from("BlockRemoved"),
                numbers(&[1]),
                Value::Nil,
                Value::from(-1),
            ]),
            "group_idx is no number",
        ),
        (
            list([
                Value::from("BlockStored"),
                numbers(&[1]),
                Value::Nil,
                list([numbers(&[1, 2])]),
                Value::from(1),
            ]),
            "token_ids has something",
        ),
        (
            list([
                Value::from("BlockStored"),
                list([Value::Binary(vec![])]),
                Value::Nil,
                list([]),
                Value::from(1),
            ]),
            "block_hashes has something",
        ),
        (Value::from(1), "neither an array nor a map"),
        (Value::Binary(vec![0xc1]), ""),
    ];
    for (event, problem) in wrong {
        let batch = list([Value::from(1.0), list([event, right.clone()]), Value::from(4)]);
        let batch = decode(&packed(&batch)).expect("a batch");
        assert_eq!(batch.rank, Some(4));
        let said = batch.events[0].as_ref().expect_err(problem).to_string();
        assert!(said.contains(problem), "{said}");
        assert_eq!(batch.events[1], Ok(Event::Cleared));
    }
    let unknown = one(list([Value::from("BlockMoved"), Value::from(1)]));
    assert_eq!(
        unknown,
        Ok(Event::Other {
            name: "BlockMoved".to_owned()
        })
    );
    for payload in [&b""[..], b"\x01", b"\x91\xc0", b"\x92\xcb\0\0\0\0\0\0\0\0\x01"] {
        decode(payload).expect_err("no batch");
    }
}
