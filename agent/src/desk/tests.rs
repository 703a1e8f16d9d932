//! Parts that are pure.

use super::rules::{exception, replaced, with_stored};
use crate::store::ExceptionRow;
use engine::judge::RuleText;
