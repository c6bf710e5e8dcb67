package braid;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import org.opensearch.common.network.NetworkService;
import org.opensearch.common.settings.ClusterSettings;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.util.BigArrays;
import org.opensearch.common.util.PageCacheRecycler;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.core.indices.breaker.CircuitBreakerService;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.core.transport.TransportResponse;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.http.HttpServerTransport;
import org.opensearch.rest.BytesRestResponse;
import org.opensearch.rest.RestChannel;
import org.opensearch.rest.RestHandler;
import org.opensearch.rest.RestRequest;
import org.opensearch.telemetry.tracing.Tracer;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.NETTY_PLUGIN;
import org.opensearch.transport.Transport;
import org.opensearch.transport.TransportInterceptor;
import org.opensearch.transport.TransportRequest;
import org.opensearch.transport.TransportRequestHandler;
import org.opensearch.transport.TransportRequestOptions;
import org.opensearch.transport.TransportResponseHandler;

/**
 * OpenSearch's own network module, with a check in front of every HTTP request and of every message between nodes.
 *
 * The node's config folder has the file "guard" with one line, "user:secret". app/dev/guard.py puts the network
 * module's class in the place of NETTY_PLUGIN (it differs between major versions) and compiles this file.
 */
public final class Guard extends NETTY_PLUGIN {
    private static final String NODE_HEADER = "_braid_node";
    /** Host names that mean this machine: a page that had its own name resolve to it is told by its Host. */
    private static final Pattern HOST = Pattern.compile("(127\\.0\\.0\\.1|localhost|\\[::1\\])(:\\d{1,5})?", Pattern.CASE_INSENSITIVE);
    private static final Set<String> OWN_SITES = Set.of("none", "same-origin");

    private final String credentials;
    private final byte[] expected;

    public Guard(Settings settings, Path config) throws IOException {
        String line = Files.readString(config.resolve("guard"), StandardCharsets.US_ASCII).strip();
        credentials = Base64.getEncoder().encodeToString(line.getBytes(StandardCharsets.US_ASCII));
        expected = credentials.getBytes(StandardCharsets.US_ASCII);
    }

    @Override
    public Map<String, Supplier<HttpServerTransport>> getHttpTransports(
        Settings settings, ThreadPool threadPool, BigArrays bigArrays, PageCacheRecycler recycler,
        CircuitBreakerService breakers, NamedXContentRegistry registry, NetworkService network,
        HttpServerTransport.Dispatcher dispatcher, ClusterSettings clusterSettings, Tracer tracer
    ) {
        return super.getHttpTransports(
            settings, threadPool, bigArrays, recycler, breakers, registry, network,
            new Checked(dispatcher), clusterSettings, tracer
        );
    }

    @Override
    public List<TransportInterceptor> getTransportInterceptors(NamedWriteableRegistry registry, ThreadContext context) {
        return List.of(new NodesOnly(context));
    }

    private boolean matches(String given) {
        return given != null && MessageDigest.isEqual(given.getBytes(StandardCharsets.UTF_8), expected);
    }

    /** Sees all that HTTP brings, unknown paths and broken requests too, before anything else of OpenSearch does. */
    private final class Checked implements HttpServerTransport.Dispatcher {
        private final HttpServerTransport.Dispatcher next;

        Checked(HttpServerTransport.Dispatcher next) {
            this.next = next;
        }

        @Override
        public void dispatchRequest(RestRequest request, RestChannel channel, ThreadContext context) {
            if (admits(request, channel)) {
                next.dispatchRequest(request, channel, context);
            }
        }

        @Override
        public void dispatchBadRequest(RestChannel channel, ThreadContext context, Throwable cause) {
            if (admits(channel.request(), channel)) {
                next.dispatchBadRequest(channel, context, cause);
            }
        }

        @Override
        public Optional<RestHandler> dispatchHandler(
            String uri, String path, RestRequest.Method method, Map<String, String> parameters
        ) {
            return next.dispatchHandler(uri, path, method, parameters);
        }

        private boolean admits(RestRequest request, RestChannel channel) {
            List<String> hosts = request.getAllHeaderValues("Host");
            if (hosts == null || hosts.size() != 1 || !HOST.matcher(hosts.get(0)).matches()) {
                return refuse(channel, RestStatus.FORBIDDEN, "the Host header must name 127.0.0.1, localhost or [::1]");
            }
            String site = request.header("Sec-Fetch-Site");
            if (request.header("Origin") != null || (site != null && !OWN_SITES.contains(site))) {
                return refuse(channel, RestStatus.FORBIDDEN, "requests of web pages are refused (Origin, Sec-Fetch-Site)");
            }
            String given = request.header("Authorization");
            if (given == null || !given.regionMatches(true, 0, "Basic ", 0, 6) || !matches(given.substring(6).strip())) {
                return refuse(
                    channel, RestStatus.UNAUTHORIZED,
                    "this node belongs to whoever started it: `braid up` says with which user and secret it is reached"
                );
            }
            return true;
        }

        private boolean refuse(RestChannel channel, RestStatus status, String reason) {
            String cause = "{\"type\":\"security_exception\",\"reason\":\"" + reason + "\"}";
            String body = "{\"error\":{\"root_cause\":[" + cause + "]," + cause.substring(1) + ",\"status\":" + status.getStatus() + "}";
            BytesRestResponse answer = new BytesRestResponse(status, "application/json; charset=UTF-8", body);
            if (status == RestStatus.UNAUTHORIZED) {
                answer.addHeader("WWW-Authenticate", "Basic realm=\"braid\", charset=\"UTF-8\"");
            }
            channel.sendResponse(answer);
            return false;
        }
    }

    /** Nodes show each other the secret in a header; a message without it is not handled. */
    private final class NodesOnly implements TransportInterceptor {
        private final ThreadContext context;

        NodesOnly(ThreadContext context) {
            this.context = context;
        }

        @Override
        public <T extends TransportRequest> TransportRequestHandler<T> interceptHandler(
            String action, String executor, boolean force, TransportRequestHandler<T> handler
        ) {
            return (request, channel, task) -> {
                if (!matches(context.getHeader(NODE_HEADER))) {
                    throw new SecurityException("[" + action + "] came from somebody who is not a node of this cluster");
                }
                handler.messageReceived(request, channel, task);
            };
        }

        @Override
        public AsyncSender interceptSender(AsyncSender sender) {
            return new AsyncSender() {
                @Override
                public <T extends TransportResponse> void sendRequest(
                    Transport.Connection connection, String action, TransportRequest request,
                    TransportRequestOptions options, TransportResponseHandler<T> handler
                ) {
                    if (context.getHeader(NODE_HEADER) != null) {
                        sender.sendRequest(connection, action, request, options, handler);
                        return;
                    }
                    try (ThreadContext.StoredContext before = context.newStoredContext(true)) {
                        context.putHeader(NODE_HEADER, credentials);
                        sender.sendRequest(connection, action, request, options, handler);
                    }
                }
            };
        }
    }
}
