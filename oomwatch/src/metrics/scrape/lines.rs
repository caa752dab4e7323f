//! Writing metrics: a description, and a line for each set of labels.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, MetricEncoder},
    metrics::{
        MetricType, counter::ConstCounter, exemplar::CounterWithExemplar, gauge::ConstGauge,
    },
    registry::Unit,
};

use crate::counts::{Kills, Victim};

/// Where metrics are written.
#[derive(Debug)]
pub(super) struct Lines<'a>(DescriptorEncoder<'a>, Option<Unit>);

impl<'a> Lines<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder, None)
    }

    /// Describes a metric; its lines are up to the caller. The unit becomes part of the name.
    pub(super) fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&str>,
        metric_type: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.1 = unit.map(|unit| Unit::Other(unit.to_owned()));
        self.0
            .encode_descriptor(name, help, self.1.as_ref(), metric_type)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let family = self.family(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(family)
    }

    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            counter(&mut family, &labels, value)?;
        }
        Ok(())
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let family = self.family(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(family)
    }

    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        (name, unit): (&str, Option<&str>),
        help: &str,
        values: impl Iterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    pub(super) fn info(
        &mut self,
        name: &str,
        help: &str,
        labels: &impl EncodeLabelSet,
    ) -> fmt::Result {
        let mut family = self.family(name, help, None, MetricType::Info)?;
        family.encode_info(labels)
    }
}

/// One line of a counter.
pub(super) fn counter(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: u64,
) -> fmt::Result {
    ConstCounter::new(value).encode(family.encode_family(labels)?)
}

/// Writes one line of a counter, with the last victim as its exemplar. The victim is no label, because every process
/// would be a series.
pub(super) fn counter_with_victim(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    kills: &Kills,
) -> fmt::Result {
    let Some(victim) = &kills.victim else {
        return counter(family, labels, kills.count);
    };
    let counter = CounterWithExemplar::<[(&str, String); 2]>::default();
    counter.inc_by(kills.count.saturating_sub(1), None, None);
    let who = [
        ("pid", victim.pid.to_string()),
        ("comm", victim.comm.clone()),
    ];
    counter.inc_by(1, Some(who), time(victim));
    counter.encode(family.encode_family(labels)?)
}

fn time(victim: &Victim) -> Option<SystemTime> {
    let since_1970 = u64::try_from(victim.unix_time_ns).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(since_1970))
}
