"""The container of examples/, built and run by podman, where LLAMASUP_TEST_PODMAN names one."""
