//! MCP, by rmcp; and the tools that need more of it than a reply.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use e2e::truth::Act;
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt as _,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, Implementation,
        JsonObject, ListToolsResult, NumberOrString, PaginatedRequestParams, ProgressNotificationParam,
        ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport,
};
use serde_json::Value;

use crate::{
    log::{Call, Env},
    timing,
    tools::TOOLS,
};

/// Tools that live here.
const OWN: &[&str] = &["echo", "big_reply", "error_tool", "fail", "progress", "slow"];

struct Oracle {
    env: Arc<Env>,
    calls: AtomicU32,
}

/// Serves one client on stdio to the end of its input. `pipes` lets rmcp reopen the two pipes.
pub(crate) async fn serve(env: Arc<Env>, pipes: bool) -> anyhow::Result<()> {
    let oracle = Oracle { env, calls: AtomicU32::new(0) };
    let service = if pipes {
        oracle.serve(transport::stdio_pipes()).await?
    } else {
        oracle.serve(transport::stdio()).await?
    };
    service.waiting().await?;
    Ok(())
}

fn text(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

fn failed(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::new(ErrorCode::INTERNAL_ERROR, error.to_string(), None)
}

impl Oracle {
    async fn own(
        &self,
        call: Call,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        match call.tool.as_str() {
            "echo" => Ok(text(Value::Object(call.args).to_string())),
            "big_reply" => {
                let n = call.number("bytes", 1 << 20);
                call.will(Act::Reply { at_least: n }).map_err(failed)?;
                Ok(text("y".repeat(n as usize)))
            }
            "error_tool" => Ok(CallToolResult::error(vec![ContentBlock::text("as asked")])),
            "fail" => Err(failed("as asked")),
            "progress" => {
                let token = context.meta.get_progress_token();
                for step in 0..3 {
                    if let Some(progress_token) = token.clone() {
                        let step = ProgressNotificationParam::new(progress_token, f64::from(step));
                        let told = context.peer.notify_progress(step).await;
                        told.map_err(failed)?;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                Ok(text("3 steps"))
            }
            "slow" => {
                let work = tokio::task::spawn_blocking(move || {
                    timing::slow(&call, &|| context.ct.is_cancelled());
                });
                work.await.map_err(failed)?;
                Ok(text("awake"))
            }
            other => Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        }
    }
}

impl ServerHandler for Oracle {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("oracle", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut schema = JsonObject::new();
        schema.insert("type".into(), "object".into());
        let schema = Arc::new(schema);
        let names = TOOLS.iter().map(|t| t.0).chain(OWN.iter().copied());
        let tools =
            names.map(|name| Tool::new(name, "An act with known effects", Arc::clone(&schema))).collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = Call {
            env: Arc::clone(&self.env),
            id: match &context.id {
                NumberOrString::Number(n) => (*n).into(),
                NumberOrString::String(s) => s.to_string().into(),
            },
            tool: request.name.to_string(),
            args: request.arguments.unwrap_or_default(),
            serial: self.calls.fetch_add(1, Ordering::Relaxed),
        };
        let Some((_, tool)) = TOOLS.iter().find(|t| t.0 == call.tool) else {
            return self.own(call, context).await.map(Into::into);
        };
        // On the blocking pool: the thread that acts is rarely the one that read the request.
        let acted: io::Result<()> = tokio::task::spawn_blocking(move || tool(&call)).await.map_err(failed)?;
        match acted {
            Ok(()) => Ok(text("done").into()),
            Err(e) => Ok(CallToolResult::error(vec![ContentBlock::text(e.to_string())]).into()),
        }
    }
}
