//! A parser of our statements, around DataFusion's for all others.

use std::fmt;

use datafusion::common::Result as DFResult;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::alter::{alter_model, comment_on_model, drop_model, rollback_model};
use super::create::create_model;
use super::parse_job::job_statement;
use crate::catalog::{Change, fold_name};
use crate::job::{CreateJob, RunReason};
use crate::runtime::CreateModel;

/// One statement.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PredictStatement {
    /// `CREATE MODEL`
    CreateModel(Box<CreateModel>),
    /// `DROP MODEL [IF EXISTS] name`, `DROP MODEL [IF EXISTS] name/version`
    DropModel {
        /// The folded name.
        name: String,
        /// The version; all of them if none is given.
        version: Option<u64>,
        /// Whether what is not there is no error.
        if_exists: bool,
    },
    /// `ALTER MODEL`, `ROLLBACK MODEL`, `COMMENT ON MODEL`
    AlterModel(Change),
    /// `SHOW MODELS`
    ShowModels,
    /// `SHOW DEVICES`
    ShowDevices,
    /// `SHOW VERSIONS IN MODEL name`
    ShowVersions {
        /// The folded name.
        name: String,
    },
    /// `DESCRIBE MODEL name`
    DescribeModel {
        /// The name as `predict` takes it.
        name: String,
    },
    /// `CREATE JOB`
    CreateJob(Box<CreateJob>),
    /// `ALTER JOB name SET (…)`
    AlterJob {
        /// The folded name.
        name: String,
        /// Options and their values.
        options: Vec<(String, String)>,
    },
    /// `DROP JOB [IF EXISTS] name`
    DropJob {
        /// The folded name.
        name: String,
        /// Whether a job that is not there is no error.
        if_exists: bool,
    },
    /// `RUN JOB name [FULL]`, `RETRY JOB name ERRORS`
    RunJob {
        /// The folded name.
        name: String,
        /// What is to be scored.
        reason: RunReason,
    },
    /// `CANCEL JOB name`
    CancelJob {
        /// The folded name.
        name: String,
    },
    /// `ROLLBACK JOB name [TO generation]`
    RollbackJob {
        /// The folded name.
        name: String,
        /// The generation, or the one before.
        to: Option<u64>,
    },
    /// `SHOW JOBS`
    ShowJobs,
    /// `DESCRIBE JOB name`
    DescribeJob {
        /// The folded name.
        name: String,
    },
    /// Any other, for DataFusion.
    DataFusion(Box<Statement>),
}

impl fmt::Display for PredictStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateModel(create) => write!(f, "{create}"),
            Self::DropModel { name, version: None, .. } => write!(f, "DROP MODEL {name}"),
            Self::DropModel { name, version: Some(version), .. } => write!(f, "DROP MODEL {name}/{version}"),
            Self::AlterModel(change) => write!(f, "ALTER MODEL {}", change.model()),
            Self::ShowModels => f.write_str("SHOW MODELS"),
            Self::ShowDevices => f.write_str("SHOW DEVICES"),
            Self::ShowVersions { name } => write!(f, "SHOW VERSIONS IN MODEL {name}"),
            Self::DescribeModel { name } => write!(f, "DESCRIBE MODEL {name}"),
            Self::CreateJob(create) => write!(f, "CREATE JOB {} AS {}", create.name, create.definition),
            Self::AlterJob { name, .. } => write!(f, "ALTER JOB {name}"),
            Self::DropJob { name, .. } => write!(f, "DROP JOB {name}"),
            Self::RunJob { name, reason: RunReason::New } => write!(f, "RUN JOB {name}"),
            Self::RunJob { name, reason: RunReason::Full } => write!(f, "RUN JOB {name} FULL"),
            Self::RunJob { name, reason: RunReason::Retry } => write!(f, "RETRY JOB {name} ERRORS"),
            Self::CancelJob { name } => write!(f, "CANCEL JOB {name}"),
            Self::RollbackJob { name, .. } => write!(f, "ROLLBACK JOB {name}"),
            Self::ShowJobs => f.write_str("SHOW JOBS"),
            Self::DescribeJob { name } => write!(f, "DESCRIBE JOB {name}"),
            Self::DataFusion(statement) => write!(f, "{statement}"),
        }
    }
}

/// The statements of `sql`, which semicolons separate.
///
/// ```
/// use datafusion::sql::sqlparser::dialect::GenericDialect;
/// use datafusion_predict::{PredictStatement, parse_sql};
///
/// let statements = parse_sql("CREATE MODEL churn FROM 'churn.onnx'; SELECT 1", &GenericDialect {})?;
/// assert!(matches!(&statements[0], PredictStatement::CreateModel(create) if create.name == "churn"));
/// assert!(matches!(&statements[1], PredictStatement::DataFusion(_)));
/// # Ok::<(), datafusion::error::DataFusionError>(())
/// ```
///
/// # Errors
/// What DataFusion's parser refuses, and mistakes in our statements, each with what was expected.
pub fn parse_sql(sql: &str, dialect: &dyn Dialect) -> DFResult<Vec<PredictStatement>> {
    let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql); // the byte-order mark of some editors
    let mut parser = DFParserBuilder::new(sql).with_dialect(dialect).build()?;
    let mut statements = vec![];
    loop {
        while parser.parser.consume_token(&Token::SemiColon) {}
        if parser.parser.peek_token().token == Token::EOF {
            return Ok(statements);
        }
        statements.push(statement(&mut parser)?);
        let next = parser.parser.peek_token();
        if !matches!(next.token, Token::SemiColon | Token::EOF) {
            return parser.parser.expected("end of statement", next).map_err(syntax);
        }
    }
}

pub(super) fn syntax(error: ParserError) -> DataFusionError {
    error.into()
}

/// The word at `position` from here, in capitals.
pub(super) fn word(parser: &Parser, position: usize) -> Option<String> {
    match parser.peek_nth_token(position).token {
        Token::Word(Word { value, quote_style: None, .. }) => Some(value.to_uppercase()),
        _ => None,
    }
}

fn statement(parser: &mut DFParser) -> DFResult<PredictStatement> {
    let words: Vec<_> = (0..4).map(|position| word(&parser.parser, position)).collect();
    let words: Vec<_> = words.iter().map(|word| word.as_deref().unwrap_or_default()).collect();
    if let Some(statement) = job_statement(parser, &words)? {
        return Ok(statement);
    }
    match words.as_slice() {
        ["CREATE", "MODEL", ..] | ["CREATE", "OR", "REPLACE", "MODEL"] => create_model(&mut parser.parser),
        ["DROP", "MODEL", ..] => drop_model(&mut parser.parser),
        ["ALTER", "MODEL", ..] => alter_model(&mut parser.parser),
        ["ROLLBACK", "MODEL", ..] => rollback_model(&mut parser.parser),
        ["COMMENT", "ON", "MODEL", ..] => comment_on_model(&mut parser.parser),
        ["SHOW", "MODELS", ..] => {
            skip(&mut parser.parser, 2);
            Ok(PredictStatement::ShowModels)
        }
        ["SHOW", "DEVICES", ..] => {
            skip(&mut parser.parser, 2);
            Ok(PredictStatement::ShowDevices)
        }
        ["SHOW", "VERSIONS", "IN", next] => {
            skip(&mut parser.parser, if *next == "MODEL" { 4 } else { 3 });
            Ok(PredictStatement::ShowVersions { name: fold_name(&reference(&mut parser.parser)?)? })
        }
        ["DESCRIBE" | "DESC", "MODEL", ..] if is_name(&parser.parser.peek_nth_token(2).token) => {
            skip(&mut parser.parser, 2);
            Ok(PredictStatement::DescribeModel { name: reference(&mut parser.parser)? })
        }
        _ => Ok(PredictStatement::DataFusion(Box::new(parser.parse_statement()?))),
    }
}

pub(super) fn skip(parser: &mut Parser, tokens: usize) {
    for _ in 0..tokens {
        parser.next_token();
    }
}

pub(super) fn is_name(token: &Token) -> bool {
    matches!(token, Token::Word(_) | Token::SingleQuotedString(_))
}

/// A name, with what may stand in it: `a`, `a-b.c`, `"A"`, `'a@b'`, `a/3`.
pub(super) fn reference(parser: &mut Parser) -> DFResult<String> {
    let first = parser.next_token();
    let mut name = match &first.token {
        Token::SingleQuotedString(text) => return Ok(text.clone()),
        Token::Word(Word { value, quote_style: None, .. }) => value.clone(),
        Token::Word(Word { value, .. }) => format!("\"{value}\""),
        _ => return parser.expected("a model's name", first).map_err(syntax),
    };
    loop {
        let joint = match parser.peek_token().token {
            Token::Minus => "-",
            Token::Period => ".",
            Token::Div => "/",
            Token::AtSign => "@",
            Token::Number(number, _) if number.starts_with('.') => {
                parser.next_token();
                name.push_str(&number);
                continue;
            }
            _ => return Ok(name),
        };
        parser.next_token();
        let next = parser.next_token();
        name = match &next.token {
            Token::Word(word) => format!("{name}{joint}{}", word.value),
            Token::Number(number, _) => format!("{name}{joint}{number}"),
            _ => return parser.expected("the rest of a model's name", next).map_err(syntax),
        };
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;

    use super::*;
    use crate::call::FeatureName;

    fn parse(sql: &str) -> DFResult<Vec<PredictStatement>> {
        parse_sql(sql, &GenericDialect {})
    }

    #[test]
    fn a_model_is_created_with_all_clauses() {
        let sql = "create or replace model Churn-v2.1 features (Age, \"Plan\") from 's3://b/m.onnx'
                   options (output 'probabilities', class 1, batch_size 512); select 1";
        let statements = parse(sql).expect("valid");
        let [PredictStatement::CreateModel(create), PredictStatement::DataFusion(_)] = statements.as_slice() else {
            panic!("{statements:?}")
        };
        assert_eq!(create.name, "churn-v2.1");
        assert_eq!(create.features, ["age", "Plan"].map(FeatureName::from));
        assert_eq!(create.uri, "s3://b/m.onnx");
        assert!(create.or_replace && !create.if_not_exists);
        assert_eq!(create.options.model.class.as_deref(), Some("1"));
        assert_eq!(create.options.model.batch_size, Some(512));
    }

    #[test]
    fn models_are_altered() {
        let change = |sql: &str| match parse(sql).expect(sql).pop() {
            Some(PredictStatement::AlterModel(change)) => format!("{change:?}"),
            other => panic!("{sql}: {other:?}"),
        };
        for (sql, expected) in [
            (
                "ALTER MODEL m SET ALIAS Champion TO 3, challenger TO v4, x TO champion",
                r#"SetAliases { model: "m", aliases: [("champion", Number(3)), ("challenger", Number(4)), ("x", Alias("champion"))] }"#,
            ),
            ("ALTER MODEL m DROP ALIAS champion", r#"DropAlias { model: "m", alias: "champion" }"#),
            (
                "ALTER MODEL m/2 SET TAG stage = 'qa', owner 'ana'",
                r#"SetTags { model: "m", version: Some(Number(2)), tags: [("stage", Some("qa")), ("owner", Some("ana"))] }"#,
            ),
            ("alter model m unset tag stage", r#"SetTags { model: "m", version: None, tags: [("stage", None)] }"#),
            (
                "ALTER MODEL m SET TRAFFIC (v3 90, v4 10) BY \"Id\"",
                r#"SetTraffic { model: "m", traffic: Some(Traffic { shares: [(3, 90), (4, 10)], by: Some("Id") }) }"#,
            ),
            ("ALTER MODEL m DROP TRAFFIC", r#"SetTraffic { model: "m", traffic: None }"#),
            ("ROLLBACK MODEL m", r#"Rollback { model: "m", to: None }"#),
            ("ROLLBACK MODEL m TO 2", r#"Rollback { model: "m", to: Some(Number(2)) }"#),
            (
                "COMMENT ON MODEL m@champion IS 'it''s'",
                r#"SetComment { model: "m", version: Some(Alias("champion")), comment: Some("it's") }"#,
            ),
            ("COMMENT ON MODEL m IS NULL", r#"SetComment { model: "m", version: None, comment: None }"#),
        ] {
            assert_eq!(change(sql), expected, "{sql}");
        }
    }

    #[test]
    fn words_of_ours_stay_names_elsewhere() {
        for sql in [
            "CREATE TABLE model (a INT)",
            "SELECT model FROM models",
            "DESCRIBE model",
            "SHOW TABLES",
            "ROLLBACK",
            "COMMENT ON TABLE t IS 'x'",
            "ALTER TABLE model ADD COLUMN a INT",
        ] {
            let statements = parse(sql).expect("valid");
            assert!(matches!(statements.as_slice(), [PredictStatement::DataFusion(_)]), "{sql}");
        }
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        let error = |sql| parse(sql).expect_err(sql).to_string();
        for (sql, expected) in [
            ("CREATE MODEL", "a model's name"),
            ("CREATE MODEL m", "FEATURES (…) or FROM 'uri'"),
            ("CREATE MODEL m FROM uri", "the model's place as a 'string'"),
            ("CREATE MODEL m FROM 'u' OPTIONS (bach_size 1)", "did you mean 'batch_size'?"),
            ("CREATE MODEL m FROM 'u' OPTIONS (batch_size 0)", "a number of rows from 1 on"),
            ("CREATE MODEL m FROM 'u' garbage", "end of statement"),
            ("CREATE MODEL 'a b' FROM 'u'", "not a letter"),
            ("CREATE OR REPLACE MODEL IF NOT EXISTS m FROM 'u'", "exclude each other"),
            ("CREATE MODEL m FROM 'u' OPTIONS (copy maybe)", "expected true or false"),
            ("CREATE MODEL m FROM 'u' OPTIONS (sha256 'abc')", "64 hexadecimal digits"),
            ("DROP MODEL", "a model's name"),
            ("DROP MODEL m@champion", "expected a name or a version, as in m/2"),
            ("ALTER MODEL m", "SET ALIAS, SET TAG, SET TRAFFIC, DROP ALIAS, UNSET TAG or DROP TRAFFIC"),
            ("ALTER MODEL m SET ALIAS best", "TO and a version"),
            ("ALTER MODEL m SET ALIAS v3 TO 3", "'v3' is no alias"),
            ("ALTER MODEL m/2 SET ALIAS best TO 3", "expected a model's name, found 'm/2'"),
            ("ALTER MODEL m SET TRAFFIC (v3 ninety)", "a share"),
            ("ALTER MODEL m SET TRAFFIC (champion 9)", "a version, as in v3"),
            ("ROLLBACK MODEL m 2", "end of statement"),
            ("COMMENT ON MODEL m IS comment", "a 'string' or NULL"),
            ("SHOW VERSIONS IN MODEL 'a b'", "not a letter"),
        ] {
            assert!(error(sql).contains(expected), "{sql}: {}", error(sql));
        }
    }
}
