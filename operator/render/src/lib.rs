//! From an `LLMDeployment` to Kubernetes objects, without a client, a clock or the environment.
//!
//! Takes in: YAML text or typed resources, the well-lit paths and accelerator profiles they name.
//! Holds: nothing between calls; equal inputs give equal bytes.
//! Gives out: [`ValidatedDeployment`] (all defaults resolved), [`Rendered`] objects in apply order,
//! or one [`FieldError`] per mistake with the field, the value and the nearest right one.
//!
//! ```text
//!  text ─decode▶ LLMDeployment ─validate▶ ValidatedDeployment ─render▶ Rendered
//!                     schema, CEL, paths, quantities, EPP configuration    labels, engines, router
//! ```
//!
//! The controller, `llmd render`, `llmd validate` and `llmd up` call these same functions.

mod decode;
mod engine_images;
mod field_error;
mod kept_path;
mod merge;
mod names;
mod object;
mod objects;
mod options;
mod paths;
mod validate;
mod validated;

pub use decode::{DecodeError, Document, decode, decode_value};
pub use engine_images::EngineImages;
pub use field_error::{FieldError, Problem};
pub use kept_path::{KEPT_PATH_FILE, kept_path_name};
pub use object::{Object, Rendered};
pub use objects::render;
pub use options::{CaBundle, Egress, RenderOptions};
pub use paths::{builtin_paths, find as find_path};
pub use validate::{Inputs, Validated, validate};
pub use validated::{
    ModelSource, PathSource, ResolvedPath, ValidatedDeployment, ValidatedEngine, ValidatedFilesystem,
    ValidatedGateway, ValidatedKv, ValidatedModel, ValidatedOffload, ValidatedParallelism, ValidatedPool,
    ValidatedProxy, ValidatedRollout, ValidatedRouter, ValidatedTransfer,
};
