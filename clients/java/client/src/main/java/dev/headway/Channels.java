package dev.headway;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.TlsChannelCredentials;
import io.grpc.okhttp.OkHttpChannelBuilder;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.URISyntaxException;
import java.util.concurrent.TimeUnit;

import javax.net.SocketFactory;

/** How to open a gRPC channel to a target. */
final class Channels {
    private static final int CONNECT_MILLIS = 5_000;
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private Channels() {}

    /** IllegalArgumentException if the CA file cannot be read. */
    static ChannelCredentials credentials(Target target) {
        if (!target.tls()) {
            return InsecureChannelCredentials.create();
        }
        if (target.ca() == null) {
            return TlsChannelCredentials.create();
        }
        try {
            return TlsChannelCredentials.newBuilder().trustManager(target.ca().toFile()).build();
        } catch (IOException error) {
            throw new IllegalArgumentException(
                    "The CA file \"" + target.ca() + "\" cannot be read: " + error.getMessage());
        }
    }

    /**
     * A channel; it sends nothing before the first call. gRPC waits up to two minutes before it
     * reconnects, much longer than a restart takes, and has no setting for that. So replace a
     * channel that has failed.
     *
     * @param direct whether callbacks run in the threads of the transport: they must not wait then
     */
    static ManagedChannel open(Target target, ChannelCredentials credentials, boolean direct) {
        OkHttpChannelBuilder builder =
                OkHttpChannelBuilder.forTarget(uri(target), credentials)
                        .maxInboundMessageSize(8 * 1024 * 1024)
                        // The server allows a ping every 10 s.
                        .keepAliveTime(30, TimeUnit.SECONDS)
                        .keepAliveTimeout(10, TimeUnit.SECONDS)
                        .keepAliveWithoutCalls(false)
                        .disableRetry()
                        .socketFactory(new ConnectTimeoutSocketFactory());
        if (target.token() != null) {
            builder.intercept(bearer(target.token()));
        }
        if (direct) {
            builder.directExecutor();
        }
        return builder.build();
    }

    /** The name that gRPC resolves. The brackets of an IPv6 address must be escaped. */
    static String uri(Target target) {
        try {
            return new URI("dns", "", "/" + target.address(), null).toString();
        } catch (URISyntaxException odd) {
            throw new IllegalArgumentException(odd.getMessage(), odd);
        }
    }

    private static ClientInterceptor bearer(String token) {
        // gRPC's own call credentials refuse plain text, even on loopback.
        return new ClientInterceptor() {
            @Override
            public <Q, A> ClientCall<Q, A> interceptCall(
                    MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
                return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
                    @Override
                    public void start(Listener<A> listener, Metadata headers) {
                        headers.put(AUTHORIZATION, "Bearer " + token);
                        super.start(listener, headers);
                    }
                };
            }
        };
    }

    /** Makes sockets that give up connecting earlier than the system, which can take minutes. */
    private static final class ConnectTimeoutSocketFactory extends SocketFactory {
        @Override
        public Socket createSocket(InetAddress host, int port) throws IOException {
            return connect(new InetSocketAddress(host, port), null);
        }

        @Override
        public Socket createSocket(String host, int port) throws IOException {
            return connect(new InetSocketAddress(host, port), null);
        }

        @Override
        public Socket createSocket(InetAddress host, int port, InetAddress from, int fromPort)
                throws IOException {
            return connect(
                    new InetSocketAddress(host, port), new InetSocketAddress(from, fromPort));
        }

        @Override
        public Socket createSocket(String host, int port, InetAddress from, int fromPort)
                throws IOException {
            return connect(
                    new InetSocketAddress(host, port), new InetSocketAddress(from, fromPort));
        }

        @Override
        public Socket createSocket() {
            return new Socket();
        }

        private static Socket connect(InetSocketAddress address, InetSocketAddress from)
                throws IOException {
            Socket socket = new Socket();
            try {
                if (from != null) {
                    socket.bind(from);
                }
                socket.connect(address, CONNECT_MILLIS);
                return socket;
            } catch (IOException error) {
                socket.close();
                throw error;
            }
        }
    }
}
