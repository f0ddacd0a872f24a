//! A scanner over Prometheus text exposition that reads only the wanted families.

use memchr::{memchr, memchr_iter, memchr2};

/// A family to look for and the series wanted from it.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: Box<[u8]>,
    /// Positions in the caller's list of series.
    pub(super) series: Vec<usize>,
}

/// Which series of a family is wanted.
#[derive(Debug)]
pub(super) struct Series {
    /// Labels it must carry.
    pub(super) labels: Vec<LabelEquals>,
    /// Prefer the greatest value instead of the greatest timestamp.
    pub(super) by_value: bool,
}

/// One label equality.
#[derive(Debug)]
pub(super) struct LabelEquals {
    pub(super) name: Box<[u8]>,
    pub(super) value: Box<[u8]>,
}

/// What was found for one wanted series.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// The best match so far.
    pub(super) best: Option<Sample>,
    /// Whether the family has any sample.
    pub(super) family_seen: bool,
}

/// One matching sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The value; 0 unless the family is a gauge or a counter.
    pub(super) value: f64,
    timestamp: i64,
    labels: (usize, usize),
}

impl Sample {
    /// The label section, without braces.
    pub(super) fn labels<'p>(&self, page: &'p [u8]) -> Labels<'p> {
        Labels(&page[self.labels.0..self.labels.1])
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Untyped,
    Scalar,
    Distribution,
}

/// Working memory of one reader; reused from page to page.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) found: Vec<Found>,
    kinds: Vec<Kind>,
}

/// Families indexed by the byte after their common prefix, so that most lines cost two comparisons.
#[derive(Debug)]
pub(super) struct Index {
    prefix_len: usize,
    prefix: Box<[u8]>,
    /// 0 = no family goes on with this byte, else a position in `groups` plus one.
    table: Box<[u8; 256]>,
    groups: Vec<Vec<usize>>,
}

impl Index {
    pub(super) fn new(families: &[Family]) -> Self {
        let mut names = families.iter().map(|family| &*family.name);
        let first = names.next().unwrap_or_default();
        let mut prefix_len = first.len().saturating_sub(1);
        for name in names {
            let shared = first.iter().zip(name).take_while(|(a, b)| a == b).count();
            // One byte of each name stays outside the prefix: the table decides on it.
            prefix_len = prefix_len.min(shared).min(name.len() - 1);
        }
        let mut table = Box::new([0_u8; 256]);
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (position, family) in families.iter().enumerate() {
            let cell = &mut table[usize::from(family.name[prefix_len])];
            if *cell == 0 {
                groups.push(Vec::new());
                *cell = u8::try_from(groups.len()).unwrap_or(u8::MAX);
            }
            groups[usize::from(*cell) - 1].push(position);
        }
        Self {
            prefix_len,
            prefix: first.get(..prefix_len).unwrap_or_default().into(),
            table,
            groups,
        }
    }

    /// Families that a line beginning with this text may belong to.
    fn candidates(&self, text: &[u8]) -> &[usize] {
        let Some(&next) = text.get(self.prefix_len) else {
            return &[];
        };
        match self.table[usize::from(next)] {
            0 => &[],
            group if text.starts_with(&self.prefix) => &self.groups[usize::from(group) - 1],
            _ => &[],
        }
    }
}

/// Walks the page and fills `scratch.found`, one entry per wanted series.
pub(super) fn scan(
    page: &[u8],
    index: &Index,
    families: &[Family],
    series: &[Series],
    scratch: &mut Scratch,
) {
    scratch.found.clear();
    scratch.found.resize(series.len(), Found::default());
    scratch.kinds.clear();
    scratch.kinds.resize(families.len(), Kind::default());
    let mut reader = Reader {
        page,
        index,
        families,
        series,
        scratch,
    };
    let mut start = 0;
    for end in memchr_iter(b'\n', page) {
        reader.line(start, end);
        start = end + 1;
    }
    reader.line(start, page.len());
}

struct Reader<'a> {
    page: &'a [u8],
    index: &'a Index,
    families: &'a [Family],
    series: &'a [Series],
    scratch: &'a mut Scratch,
}

impl Reader<'_> {
    #[inline]
    fn line(&mut self, mut start: usize, end: usize) {
        let page = self.page;
        while start < end && is_blank(page[start]) {
            start += 1;
        }
        if start == end {
            return;
        }
        let line = &page[start..end];
        if line[0] == b'#' {
            self.comment(&line[1..]);
            return;
        }
        for &family in self.index.candidates(line) {
            let Some(rest) = line.strip_prefix(&*self.families[family].name) else {
                continue;
            };
            if self.belongs(family, rest) {
                self.sample(family, end - rest.len(), end);
            }
        }
    }

    fn comment(&mut self, text: &[u8]) {
        let text = text.trim_ascii_start();
        let Some(text) = text.strip_prefix(b"TYPE") else {
            return;
        };
        if !text.first().is_some_and(|byte| is_blank(*byte)) {
            return;
        }
        let text = text.trim_ascii_start();
        for &family in self.index.candidates(text) {
            let Some(rest) = text.strip_prefix(&*self.families[family].name) else {
                continue;
            };
            if !rest.first().is_some_and(|byte| is_blank(*byte)) {
                continue;
            }
            self.scratch.kinds[family] = match rest.trim_ascii() {
                b"gauge" | b"counter" => Kind::Scalar,
                b"histogram" | b"summary" => Kind::Distribution,
                _ => Kind::Untyped,
            };
        }
    }

    /// Whether what follows the name says that the line is a sample of the family itself.
    fn belongs(&self, family: usize, rest: &[u8]) -> bool {
        match rest.first() {
            Some(b'{' | b' ' | b'\t') => true,
            Some(b'_') if self.scratch.kinds[family] == Kind::Distribution => {
                [b"_bucket".as_slice(), b"_sum", b"_count"].iter().any(|suffix| {
                    let after = rest.strip_prefix(*suffix).and_then(|after| after.first());
                    matches!(after, Some(b'{' | b' ' | b'\t'))
                })
            }
            _ => false,
        }
    }

    fn sample(&mut self, family: usize, start: usize, end: usize) {
        let Some((labels, value, timestamp)) = read_sample(self.page, start, end) else {
            return;
        };
        let value = if self.scratch.kinds[family] == Kind::Scalar {
            value
        } else {
            0.0
        };
        for &wanted in &self.families[family].series {
            let Series {
                labels: needed,
                by_value,
            } = &self.series[wanted];
            let found = &mut self.scratch.found[wanted];
            found.family_seen = true;
            let section = Labels(&self.page[labels.0..labels.1]);
            if !needed.iter().all(|label| section.has(&label.name, &label.value)) {
                continue;
            }
            let better = found.best.is_none_or(|best| {
                if *by_value {
                    value > best.value
                } else {
                    timestamp > best.timestamp
                }
            });
            if better {
                found.best = Some(Sample {
                    value,
                    timestamp,
                    labels,
                });
            }
        }
    }
}

/// Labels and values of all samples of one family.
pub fn series<'p>(page: &'p [u8], family: &'p [u8]) -> impl Iterator<Item = (Labels<'p>, f64)> {
    let mut start = 0;
    let lines = memchr_iter(b'\n', page).chain(std::iter::once(page.len()));
    lines.filter_map(move |end| {
        let from = std::mem::replace(&mut start, end + 1);
        let rest = page.get(from..end)?.strip_prefix(family)?;
        let is_family = rest.first().is_some_and(|byte| *byte == b'{' || is_blank(*byte));
        let ((open, close), value, _) = read_sample(page, from + family.len(), end).filter(|_| is_family)?;
        Some((Labels(&page[open..close]), value))
    })
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Label section, value and timestamp (0 without one) of the sample whose name ends at `start`;
/// `None` when the line is malformed.
fn read_sample(page: &[u8], start: usize, end: usize) -> Option<((usize, usize), f64, i64)> {
    // The name of a distribution's sample goes on after the family's name.
    let mut at = start;
    while at < end && page[at] != b'{' && !is_blank(page[at]) {
        at += 1;
    }
    while at < end && is_blank(page[at]) {
        at += 1;
    }
    let mut labels = (at, at);
    if page[at..end].first() == Some(&b'{') {
        let open = at + 1;
        let close = open + closing_brace(&page[open..end])?;
        labels = (open, close);
        if !Labels(&page[open..close]).well_formed() {
            return None;
        }
        at = close + 1;
    }
    let mut tokens = page[at..end]
        .split(|byte| is_blank(*byte))
        .filter(|token| !token.is_empty());
    let value: f64 = std::str::from_utf8(tokens.next()?).ok()?.parse().ok()?;
    let timestamp: i64 = match tokens.next() {
        Some(token) => std::str::from_utf8(token).ok()?.parse().ok()?,
        None => 0,
    };
    tokens.next().is_none().then_some((labels, value, timestamp))
}

/// Position of the `}` that ends a label section; braces inside quotes do not count.
fn closing_brace(section: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let hit = at + memchr2(b'"', b'}', &section[at..])?;
        if section[hit] == b'}' {
            return Some(hit);
        }
        at = hit + 1 + closing_quote(&section[hit + 1..])? + 1;
    }
}

/// Position of the quote that ends a value; escaped ones do not count.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let hit = at + memchr2(b'"', b'\\', &text[at..])?;
        if text[hit] == b'"' {
            return Some(hit);
        }
        at = hit + 2;
        if at > text.len() {
            return None;
        }
    }
}

/// Labels of one sample: names and still escaped values.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'p>(&'p [u8]);

impl<'p> Labels<'p> {
    /// The escaped value of `name`.
    pub fn get(mut self, name: &[u8]) -> Option<&'p [u8]> {
        while let Next::Label(key, value) = self.pop() {
            if key == name {
                return Some(value);
            }
        }
        None
    }

    fn has(self, name: &[u8], wanted: &[u8]) -> bool {
        self.get(name).is_some_and(|raw| unescaped_eq(raw, wanted))
    }

    fn well_formed(mut self) -> bool {
        loop {
            match self.pop() {
                Next::Label(..) => {}
                Next::End => return true,
                Next::Malformed => return false,
            }
        }
    }

    fn pop(&mut self) -> Next<'p> {
        let text = self.0.trim_ascii_start();
        if text.is_empty() {
            return Next::End;
        }
        let Some((name, value, rest)) = split_label(text) else {
            return Next::Malformed;
        };
        self.0 = rest;
        Next::Label(name, value)
    }
}

/// One step through a label section.
enum Next<'p> {
    Label(&'p [u8], &'p [u8]),
    End,
    Malformed,
}

/// `name="value"` and what follows the comma.
fn split_label(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let equals = memchr(b'=', text)?;
    let name = text[..equals].trim_ascii_end();
    let value = text[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
    let close = closing_quote(value)?;
    let rest = value[close + 1..].trim_ascii_start();
    let rest = match rest.split_first() {
        None => rest,
        Some((b',', rest)) => rest,
        Some(_) => return None,
    };
    (!name.is_empty()).then_some((name, &value[..close], rest))
}

/// Compares an escaped label value (`\\`, `\"`, `\n`) with plain text.
fn unescaped_eq(raw: &[u8], wanted: &[u8]) -> bool {
    if memchr(b'\\', raw).is_none() {
        return raw == wanted;
    }
    let mut raw = raw.iter();
    let mut wanted = wanted.iter();
    loop {
        let byte = match raw.next() {
            None => return wanted.next().is_none(),
            Some(b'\\') => match raw.next() {
                Some(b'n') => b'\n',
                Some(other) => *other,
                None => return false,
            },
            Some(byte) => *byte,
        };
        if wanted.next() != Some(&byte) {
            return false;
        }
    }
}
