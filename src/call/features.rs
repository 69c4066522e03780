//! Names for features: `FEATURES (age, plan)`, `FEATURES (x_cat (store, product), x_num (price, qty))`.

/// The name of a feature.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeatureName {
    /// The column of that name is given to the model where a call names no order.
    pub name: String,
    /// The input of the graph whose columns it is one of; `None` if the order alone says so, or if it is an input of its own.
    pub input: Option<String>,
}

impl<T: Into<String>> From<T> for FeatureName {
    fn from(name: T) -> Self {
        Self { name: name.into(), input: None }
    }
}
