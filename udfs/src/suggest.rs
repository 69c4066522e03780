//! Names that a user may have meant.

/// The candidate nearest to `name` by edit distance, if it is near enough to be a misspelling (a third of the name).
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.chars().count().max(3))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_near_names_are_suggested() {
        let models = ["churn", "fraud", "iris"];
        assert_eq!(nearest("chrun", models), Some("churn"));
        assert_eq!(nearest("IRSI", models), Some("iris"));
        assert_eq!(nearest("weather", models), None);
    }
}
