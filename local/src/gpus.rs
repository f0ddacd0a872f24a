//! Hands the machine's GPUs to pods the way a device plugin does: whole devices, by count.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;

/// Longest wait for `nvidia-smi`.
const LIST_DEADLINE: Duration = Duration::from_secs(10);

/// Why a pod gets no GPU.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GpuError {
    /// The whole plan asks for more than the machine has.
    #[error(
        "{what} asks for {asked} GPUs (`nvidia.com/gpu`) and this machine has {present}: lower `replicas` or \
         `parallelism.tensor`, or use `engine.type: Simulator`"
    )]
    TooMany {
        /// Workloads that ask, by name.
        what: String,
        /// Sum of the rendered counts.
        asked: usize,
        /// Devices that `nvidia-smi -L` lists.
        present: usize,
    },
    /// The rendered objects ask for a device kind that cannot be assigned on one machine.
    #[error("{workload} asks for `{resource}`: only `nvidia.com/gpu` devices can be assigned on one machine")]
    UnknownDevice {
        /// Workload name.
        workload: String,
        /// Extended resource name.
        resource: String,
    },
}

/// The machine's devices and who holds them.
#[derive(Debug, Default)]
pub struct Gpus {
    present: usize,
    free: BTreeSet<u32>,
}

impl Gpus {
    /// A machine with `count` devices, numbered from 0 as CUDA does.
    pub fn with_devices(count: usize) -> Self {
        Self {
            present: count,
            free: (0..count as u32).collect(),
        }
    }

    /// Lists the machine's devices with `nvidia-smi -L`; none when the tool is missing. `visible` is the user's own
    /// `CUDA_VISIBLE_DEVICES`, which narrows the choice.
    pub async fn detect(visible: Option<&str>) -> Self {
        let listing = tokio::process::Command::new("nvidia-smi")
            .arg("-L")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let count = match tokio::time::timeout(LIST_DEADLINE, listing).await {
            Ok(Ok(output)) if output.status.success() => {
                count_devices(&String::from_utf8_lossy(&output.stdout))
            }
            _ => 0,
        };
        Self::with_devices(count).narrowed(visible)
    }

    /// Leaves the devices that `visible` lists by number; a list in other forms (UUIDs) narrows nothing.
    fn narrowed(mut self, visible: Option<&str>) -> Self {
        let numbers: Option<BTreeSet<u32>> =
            visible.and_then(|list| list.split(',').map(|number| number.trim().parse().ok()).collect());
        if let Some(numbers) = numbers {
            self.free.retain(|device| numbers.contains(device));
            self.present = self.free.len();
        }
        self
    }

    /// Devices of the machine, free or not.
    pub fn present(&self) -> usize {
        self.present
    }

    /// Devices nobody holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes the `count` lowest free devices, or none when fewer are free.
    pub fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        if self.free.len() < count {
            return None;
        }
        let taken: Vec<u32> = self.free.iter().copied().take(count).collect();
        for device in &taken {
            self.free.remove(device);
        }
        Some(taken)
    }

    /// Gives devices back.
    pub fn give_back(&mut self, devices: &[u32]) {
        self.free.extend(devices.iter().copied());
    }
}

/// The value of `CUDA_VISIBLE_DEVICES` for `devices`.
pub fn visible_devices(devices: &[u32]) -> String {
    devices.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Lines of `nvidia-smi -L` that name a device (`GPU 0: NVIDIA H100 … (UUID: …)`); MIG slices are indented below
/// their device and are not counted.
fn count_devices(listing: &str) -> usize {
    listing.lines().filter(|line| line.starts_with("GPU ")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_sliced_without_overlap_and_reused() {
        let mut gpus = Gpus::with_devices(4);
        let first = gpus.take(2).unwrap();
        let second = gpus.take(2).unwrap();
        assert_eq!(
            (visible_devices(&first), visible_devices(&second)),
            ("0,1".into(), "2,3".into())
        );
        assert_eq!(gpus.take(1), None);
        gpus.give_back(&first);
        assert_eq!(gpus.free(), 2);
        assert_eq!(gpus.take(1), Some(vec![0]));
    }

    #[test]
    fn a_pod_without_gpus_takes_none() {
        assert_eq!(Gpus::with_devices(0).take(0), Some(vec![]));
    }

    #[test]
    fn the_users_own_choice_of_devices_is_kept() {
        let narrowed = |visible| {
            let mut gpus = Gpus::with_devices(4).narrowed(visible);
            let present = gpus.present();
            gpus.take(present).unwrap()
        };
        assert_eq!(narrowed(Some("2,3")), [2, 3]);
        assert_eq!(narrowed(Some("3, 9")), [3]);
        assert_eq!(narrowed(None), [0, 1, 2, 3]);
        assert_eq!(narrowed(Some("GPU-aa")), [0, 1, 2, 3]);
    }

    #[test]
    fn only_whole_devices_of_the_listing_count() {
        let listing = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa)\n  MIG 1g.10gb Device 0: (UUID: MIG-bb)\n\
                       GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-cc)\n";
        assert_eq!(count_devices(listing), 2);
        assert_eq!(count_devices("No devices found.\n"), 0);
    }

    #[test]
    fn a_refusal_names_both_numbers() {
        let error = GpuError::TooMany {
            what: "deployment/x-decode".into(),
            asked: 16,
            present: 2,
        };
        let text = error.to_string();
        assert!(text.contains("16 GPUs") && text.contains("has 2"), "{text}");
    }
}
