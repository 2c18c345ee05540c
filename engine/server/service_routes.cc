// Routes, and the way of a call until it is queued.
#include <array>
#include <boost/asio/post.hpp>
#include <random>
#include <utility>

#include "engine/log.h"
#include "engine/server/http_server.h"
#include "engine/server/page.h"
#include "engine/server/probe_call.h"
#include "engine/server/server_info.h"
#include "engine/server/service_impl.h"

namespace augur::server {
namespace {

// How long /health_generate waits for its token.
constexpr std::chrono::seconds kProbeTimeout{20};

constexpr std::string_view kModelPrefix = "/v1/models/";

[[noreturn]] void throw_not_allowed(const HttpRequest& request) {
  throw ApiError(405, "invalid_request_error", "method_not_allowed", "",
                 fmt::format("{} does not take {}", request.path, request.method));
}

// A page of another origin can send other types of content without asking first.
void require_json(const HttpRequest& request) {
  if (request.content_type == "application/json") return;
  throw ApiError(
      400, "invalid_request_error", "unsupported_content_type", "",
      fmt::format("Content-Type is \"{}\"; accepted: application/json", request.content_type));
}

ApiError internal_error() {
  return {500, "server_error", "internal_error", "", "the server failed to handle the request"};
}

}  // namespace

std::string salt_of_key(const std::string& key_name) {
  return key_name + '\n';
}

std::span<const Service::Impl::Route> Service::Impl::routes() {
  static constexpr std::array kRoutes{
      Route{"/health", kGet, false, false, &Impl::health,
            "200 when ready, else 503; the state: ok, loading, draining, failed"},
      Route{"/health_generate", kGet, false, true, &Impl::health_generate,
            "the same, proved by a token that the engine generates within 20 s"},
      Route{"/metrics", kGet, false, false, &Impl::metrics, "figures for Prometheus"},
      Route{"/stats", kGet, false, false, &Impl::stats,
            "figures for the page, as JSON (shape: engine/server/stats.h)"},
      Route{"/server_info", kGet, false, true, &Impl::server_info,
            "version, model, limits, memory, what the start took, the configuration in effect"},
      Route{"/get_server_info", kGet, false, true, &Impl::server_info,
            "the same, for older clients of SGLang"},
      Route{"/model_info", kGet, false, true, &Impl::model_info,
            "model path and context, for clients of SGLang"},
      Route{"/get_model_info", kGet, false, true, &Impl::model_info, "the same, for older ones"},
      Route{"/v1/models", kGet, false, true, &Impl::models,
            "the names the model answers to; /v1/models/NAME: one of them"},
      Route{"/v1/completions", kPost, false, true, &Impl::completions,
            "completions of texts or token ids ([api.md](api.md))"},
      Route{"/v1/chat/completions", kPost, false, true, &Impl::chat,
            "completions of chats ([api.md](api.md))"},
      Route{"/generate", kPost, false, true, &Impl::generate,
            "SGLang's native form ([api.md](api.md))"},
      Route{"/v1/tokenize", kPost, false, true, &Impl::tokenize, "token ids of a text or a chat"},
      Route{"/tokenize", kPost, false, true, &Impl::tokenize, "the same"},
      Route{"/v1/detokenize", kPost, false, true, &Impl::detokenize, "text of token ids"},
      Route{"/detokenize", kPost, false, true, &Impl::detokenize, "the same"},
      Route{"/flush_cache", kAny, true, true, &Impl::flush_cache,
            "gives up what the prefix cache holds and nobody uses"},
      Route{"/start_profile", kPost, true, true, &Impl::start_profile,
            "begins to record steps and requests: {\"file\", \"num_steps\"}, both optional"},
      Route{"/stop_profile", kPost, true, true, &Impl::stop_profile,
            "ends that and writes the trace, for chrome://tracing or Perfetto"},
      Route{"/abort_request", kPost, false, true, &Impl::abort_request,
            "ends the request of an id, {\"rid\"}, or all of them, {\"abort_all\": true}, which "
            "needs an administrator's key"},
  };
  return kRoutes;
}

std::vector<RouteInfo> Service::Impl::route_infos() {
  std::vector<RouteInfo> infos;
  for (const Route& route : routes()) {
    infos.push_back({route.path,
                     route.methods == kAny    ? "GET, POST"
                     : route.methods == kPost ? "POST"
                                              : "GET",
                     route.is_admin, route.help});
  }
  return infos;
}

void Service::Impl::handle(HttpRequest&& request, std::shared_ptr<Reply> reply) {
  try {
    route({std::move(request), reply, Clock::now()});
  } catch (const ApiError& error) {
    refuse(*reply, error);
  }
}

void Service::Impl::route(Exchange&& exchange) {
  const HttpRequest& request = exchange.request;
  const bool is_get = request.method == "GET";
  if (const PageFile* file = find_page_file(request.path); file != nullptr && is_get) {
    return respond(*exchange.reply, page_response(*file));
  }
  if (is_get && request.path.starts_with(kModelPrefix)) {
    require_model();
    return respond(*exchange.reply, {.body = model_body(request.path.substr(kModelPrefix.size()),
                                                        model_->context(), created_s_)});
  }
  for (const Route& candidate : routes()) {
    if (candidate.path != request.path) continue;
    const bool is_post = request.method == "POST";
    if (!(is_get && (candidate.methods & kGet)) && !(is_post && (candidate.methods & kPost))) {
      throw_not_allowed(request);
    }
    if (candidate.is_admin) require_admin(request);
    if (candidate.needs_model) require_model();
    return (this->*candidate.run)(std::move(exchange));
  }
  throw ApiError(404, "invalid_request_error", "not_found", "",
                 fmt::format("there is nothing at {}", request.path));
}

void Service::Impl::health(Exchange&& exchange) {
  const ServerState now = state();
  respond(*exchange.reply, {.status = now == ServerState::kReady ? 200 : 503,
                            .body = fmt::format(R"({{"status":"{}"}})",
                                                now == ServerState::kReady ? "ok" : name_of(now))});
}

void Service::Impl::health_generate(Exchange&& exchange) {
  const std::string id = make_id("probe-");
  probes_.push_back({id, Clock::now() + kProbeTimeout});
  calls_->start(make_probe_call(id), id, /*owner=*/"", Clock::now(), std::move(exchange.reply));
}

void Service::Impl::models(Exchange&& exchange) {
  respond(*exchange.reply, {.body = models_body(model_->context(), created_s_)});
}

void Service::Impl::model_info(Exchange&& exchange) {
  respond(*exchange.reply, {.body = model_info_body(*model_)});
}

void Service::Impl::call(Exchange&& exchange, std::string_view id_prefix, ParseCall parse) {
  require_json(exchange.request);
  auto shared = std::make_shared<Exchange>(std::move(exchange));
  const CallIdentity identity{make_id(id_prefix), now_s()};
  // A reply belongs to the server's thread: its last pointer must go there, and so is handed on
  // whole.
  boost::asio::post(workers_, [this, shared, identity, parse]() mutable {
    // Lambdas that are copied hold what is moved: through a pointer.
    auto parsed = std::make_shared<ApiCall>();
    try {
      *parsed = parse(shared->request.body, model_->context(), identity);
      own_requests(*parsed, shared->request);
    } catch (const ApiError& error) {
      return server_->post(
          [this, shared = std::move(shared), error] { refuse_call(*shared, error); });
    } catch (const std::exception& error) {
      log_error("{}: {}", shared->request.path, error.what());
      return server_->post(
          [this, shared = std::move(shared)] { refuse_call(*shared, internal_error()); });
    }
    shared->request.body = {};  // of no use any more
    shared->request.body_hold.release();
    server_->post([this, shared = std::move(shared), identity, parsed] {
      start_call(std::move(*parsed), identity.id, *shared);
    });
  });
}

void Service::Impl::convert(Exchange&& exchange, MakeBody make) {
  require_json(exchange.request);
  auto shared = std::make_shared<Exchange>(std::move(exchange));
  boost::asio::post(workers_, [this, shared, make]() mutable {
    HttpResponse response;
    try {
      response.body = make(shared->request.body, model_->context());
    } catch (const ApiError& error) {
      response = error_response(error);
    } catch (const std::exception& error) {
      log_error("{}: {}", shared->request.path, error.what());
      response = error_response(internal_error());
    }
    auto answer = std::make_shared<HttpResponse>(std::move(response));
    server_->post([this, shared = std::move(shared), answer] {
      respond(*shared->reply, std::move(*answer));
    });
  });
}

void Service::Impl::start_call(ApiCall parsed, const std::string& id, const Exchange& exchange) {
  calls_->start(std::move(parsed), id, exchange.request.key_name, exchange.arrival, exchange.reply);
}

void Service::Impl::refuse_call(const Exchange& exchange, const ApiError& error) {
  metrics_.count_refusal(error.code == "context_length_exceeded" ? Refusal::kTooLong
                         : error.code == "model_not_found"       ? Refusal::kUnknownModel
                                                                 : Refusal::kInvalid);
  refuse(*exchange.reply, error);
}

// Each key is a tenant: it has its turn, and a prefix cache of its own unless that is shared.
void Service::Impl::own_requests(ApiCall& parsed, const HttpRequest& request) const {
  if (request.key_name.empty()) return;
  for (Request& one : parsed.requests) {
    one.tenant = request.key_name;
    if (!config_.share_prefixes) one.cache_salt = salt_of_key(request.key_name) + one.cache_salt;
  }
}

/// Ids are not to be guessed: draws of requests without a seed depend on them.
std::string Service::Impl::make_id(std::string_view prefix) {
  std::random_device device;
  return fmt::format("{}{:08x}{:08x}{:016x}", prefix, device(), device(), id_key_ + num_ids_++);
}

std::vector<RouteInfo> list_routes() {
  return Service::Impl::route_infos();
}

}  // namespace augur::server
