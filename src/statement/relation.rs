//! Functions of a model and a table: `ml_predict(model => …, data => t)` and its kin.

use std::ops::ControlFlow;

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, Query, TableAlias, TableFactor, Value, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The functions that take a table's name where DataFusion sees a column.
const NAMES: [&str; 2] = [super::ml_predict::NAME, super::ml_compare::NAME];

/// A call of such a function.
pub(super) struct RelationCall<'a> {
    /// The function.
    pub name: &'static str,
    /// How it is called, for errors.
    pub form: &'static str,
    arguments: &'a [FunctionArg],
    /// What the statement calls its rows.
    pub alias: Option<TableAlias>,
}

impl<'a> RelationCall<'a> {
    /// The call of `name`, if `relation` is one.
    pub(super) fn of(relation: &'a TableFactor, name: &'static str, form: &'static str) -> Option<Self> {
        let (called, arguments, alias) = match relation {
            TableFactor::Table { name, args: Some(arguments), alias, .. } => (name, &arguments.args, alias),
            TableFactor::Function { name, args, alias, .. } => (name, args, alias),
            _ => return None,
        };
        let ours = called.to_string().eq_ignore_ascii_case(name);
        ours.then(|| Self { name, form, arguments, alias: alias.clone() })
    }

    /// The value of the argument `wanted`, if it is given.
    pub(super) fn find(&self, wanted: &str) -> Option<&'a SqlExpr> {
        self.arguments.iter().find_map(|argument| match argument {
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }
                if name.value.eq_ignore_ascii_case(wanted) =>
            {
                Some(value)
            }
            _ => None,
        })
    }

    /// Refuses arguments that are not among `known`.
    pub(super) fn check(&self, known: &[&str]) -> Result<()> {
        for argument in self.arguments {
            match argument {
                FunctionArg::Named { name, .. } if known.iter().any(|known| name.value.eq_ignore_ascii_case(known)) => {
                }
                _ => return plan_err!("{}: expected {}, found `{argument}`", self.name, self.form),
            }
        }
        Ok(())
    }

    fn get(&self, wanted: &str) -> Result<&'a SqlExpr> {
        match self.find(wanted) {
            Some(value) => Ok(value),
            None => plan_err!("{}: expected {}: '{wanted}' is missing", self.name, self.form),
        }
    }

    /// The model's name in the argument `wanted`.
    pub(super) fn model(&self, wanted: &str) -> Result<&'a str> {
        let SqlExpr::Value(value) = self.get(wanted)? else {
            return plan_err!("{}: the model's name ('{wanted}') must be a string literal", self.name);
        };
        match &value.value {
            Value::SingleQuotedString(model) => Ok(model),
            _ => plan_err!("{}: the model's name ('{wanted}') must be a string literal, found {value}", self.name),
        }
    }

    /// The plan of the argument `data`.
    pub(super) fn data(&self, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let SqlExpr::Subquery(subquery) = self.get("data")? else {
            return plan_err!(
                "{}: write the data as a subquery, data => (SELECT * FROM t): a table's name alone is understood where statements run through predict_sql or the shell",
                self.name
            );
        };
        let subquery = subquery.clone();
        context.plan(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })
    }
}

fn is_ours(name: &ObjectName) -> bool {
    let name = name.to_string();
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Rewrites `data => t` to `data => (SELECT * FROM t)`: DataFusion looks for a statement's tables before it plans, and
/// finds none in an argument.
pub(super) fn rewrite_tables(statement: &mut Statement) {
    struct Rewriter;

    impl VisitorMut for Rewriter {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let arguments = match factor {
                TableFactor::Table { name, args: Some(arguments), .. } if is_ours(name) => &mut arguments.args,
                TableFactor::Function { name, args, .. } if is_ours(name) => args,
                _ => return ControlFlow::Continue(()),
            };
            for argument in arguments {
                if let FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } = argument
                    && name.value.eq_ignore_ascii_case("data")
                    && let Some(query) = select_all(value)
                {
                    *value = SqlExpr::Subquery(query);
                }
            }
            ControlFlow::Continue(())
        }
    }

    match statement {
        Statement::Statement(statement) => _ = statement.visit(&mut Rewriter),
        Statement::Explain(explain) => rewrite_tables(&mut explain.statement),
        Statement::CopyTo(copy) => {
            if let datafusion::sql::parser::CopyToSource::Query(query) = &mut copy.source {
                _ = query.visit(&mut Rewriter);
            }
        }
        _ => {}
    }
}

/// `SELECT * FROM t`, if `expr` may be the table's name `t`.
fn select_all(expr: &SqlExpr) -> Option<Box<Query>> {
    if !matches!(expr, SqlExpr::Identifier(_) | SqlExpr::CompoundIdentifier(_)) {
        return None;
    }
    let parser = Parser::new(&GenericDialect {}).try_with_sql(&format!("SELECT * FROM {expr}"));
    parser.and_then(|mut parser| parser.parse_query()).ok()
}
